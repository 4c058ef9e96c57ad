"""What commands print: text, tables and rows."""
