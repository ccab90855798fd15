"""Compiled kernels of attention on a CPU; each has its definition in plain torch beside it."""
