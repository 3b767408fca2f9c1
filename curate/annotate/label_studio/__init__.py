"""Label Studio both ways: rows become tasks, what people say of them comes back."""
