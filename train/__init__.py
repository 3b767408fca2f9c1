"""Train: fine-tune a model to abstain when the context does not hold the answer."""
