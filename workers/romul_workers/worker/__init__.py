"""The worker's own process: leases trials, has them trained, and reports how they ended."""
