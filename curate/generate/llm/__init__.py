"""Questions that a language model writes on passages, each verified before it is believed."""
