"""One module a way of making a context insufficient, and the checks of their labels."""
