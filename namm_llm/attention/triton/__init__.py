"""Triton kernels of the attention part, imported only behind `attention.backend`."""
