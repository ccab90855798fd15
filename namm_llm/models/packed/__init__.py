"""Packed weights: matrices that stay quantised in memory while a CPU multiplies by them."""

from namm_llm.models.packed.build import Packer, from_embedding, from_linear, make_linear
from namm_llm.models.packed.choice import Backend, backend, describe
from namm_llm.models.packed.decoder import fuse_layers
from namm_llm.models.packed.embedding import PackedEmbedding
from namm_llm.models.packed.linear import PackedLinear, fuse, rows_are_independent

__all__ = [
    "Backend",
    "PackedEmbedding",
    "PackedLinear",
    "Packer",
    "backend",
    "describe",
    "from_embedding",
    "from_linear",
    "fuse",
    "fuse_layers",
    "make_linear",
    "rows_are_independent",
]
