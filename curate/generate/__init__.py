"""Rows that are written and not found: from facts by templates, from passages by models."""
