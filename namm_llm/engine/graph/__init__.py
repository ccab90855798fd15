"""Decoding in fixed shapes, which a CUDA graph can repeat.

Experimental: the recording has never run on a GPU; on a CPU the same steps are tested without one.
Optional: the folder can be deleted, and answers are decoded by plain calls of the model.
"""

from namm_llm.engine.graph.decoding import GraphDecoding

__all__ = ["GraphDecoding"]
