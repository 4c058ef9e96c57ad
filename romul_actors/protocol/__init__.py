"""What travels between processes, and what a user declares."""
