"""Amazon Mechanical Turk, by its batch files: no account of ours, no key, nothing sent."""
