"""`python -m romul_actors.cli` is `romul`."""

from romul_actors.cli import main

main()
