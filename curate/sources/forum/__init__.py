"""Forums: threads of questions and replies, from each software's own form."""
