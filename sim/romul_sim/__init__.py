"""The simulator: the real actor and workers in virtual time, on machines that come and go."""
