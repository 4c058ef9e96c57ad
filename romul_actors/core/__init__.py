"""The decision core: pure functions over frozen values; numpy and the standard library, no I/O."""
