"""What processes that run until they are stopped do: wait for a server, serve metrics, and end."""
