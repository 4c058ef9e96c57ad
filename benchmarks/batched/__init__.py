"""Networks of many populations, trained side by side as one batch on one device.

`engine` takes trials from the production core and reports their results; `digits`, `cifar` and
`ptb` are networks with their data; `streams` gives each network random numbers of its own.
"""
