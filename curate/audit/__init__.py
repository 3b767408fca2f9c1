"""What a data set is worth before anyone trains on it: labels, leaks, shortcuts."""
