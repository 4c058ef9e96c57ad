"""Networks of many populations, trained side by side as one batch on one device.

`engine` asks the production core what to train and reports what came of it; `digits`, `cifar` and
`ptb` are networks with their data; `streams` gives each network random numbers of its own.
"""
