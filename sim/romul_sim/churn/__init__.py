"""`romul sim`: machines that come and go, by traces or generators, and the use of their time."""
