"""The simulated cluster of `romul sim` and `romul chaos`: time, network, store and training."""
