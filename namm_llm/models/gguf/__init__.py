"""Models from GGUF files: everything from the file alone, offline, with weights left packed."""

from __future__ import annotations

from namm_llm.models.gguf.convert import convert_gguf
from namm_llm.models.gguf.embedding import BlockEmbedding
from namm_llm.models.gguf.file import GgufFile, is_gguf, open_gguf
from namm_llm.models.gguf.load import GgufModel, load_gguf
from namm_llm.models.gguf.weights import MakeEmbedding, MakeLinear

__all__ = [
    "BlockEmbedding",
    "GgufFile",
    "GgufModel",
    "MakeEmbedding",
    "MakeLinear",
    "convert_gguf",
    "is_gguf",
    "load_gguf",
    "open_gguf",
]
