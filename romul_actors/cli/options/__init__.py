"""Options and arguments of commands: their declarations, and what checks and parses them."""
