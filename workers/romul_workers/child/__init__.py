"""The child process, which imports and trains the task, and the worker's side of it."""
