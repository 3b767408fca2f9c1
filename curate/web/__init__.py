"""What a web page says: its questions with their answers, and its passages."""
