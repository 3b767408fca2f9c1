"""One module a source: each reads its format into rows and passages, and judges nothing."""
