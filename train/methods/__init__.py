"""One module a way of fine-tuning few parameters of a large model."""
