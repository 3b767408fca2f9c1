"""People in the loop: what they are asked, what they say, and how far they agree."""
