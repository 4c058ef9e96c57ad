"""Messages between processes, and the declarations of users."""
