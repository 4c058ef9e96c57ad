"""Trains the networks of many populations in one batch on one device.

`engine` takes trials from the production core and reports their results. `digits`, `cifar` and
`ptb` are networks with their data. `streams` gives each network its own random numbers.
"""
