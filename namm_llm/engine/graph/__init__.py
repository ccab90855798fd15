"""Decoding in fixed shapes, which a CUDA graph can repeat. Optional: the folder can be deleted."""
