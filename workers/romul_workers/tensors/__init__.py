"""Tensors of torch models and optimizers: in files, and kept in memory."""
