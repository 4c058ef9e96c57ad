"""The population in a browser; needs 'romul[dashboard]'."""
