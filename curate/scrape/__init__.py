"""Fetching pages of the web: politely, within bounds, and never twice without need."""
