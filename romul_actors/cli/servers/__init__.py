"""The servers and local runs that hold searches: how a command finds and follows one."""
