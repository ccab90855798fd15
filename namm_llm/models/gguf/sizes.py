"""The sizes that a GGUF file describes, checked against each other and against its tensors.

A model is never made larger than its file: whatever costs memory before the weights are read
follows from a number that is compared with a tensor's shape here.
"""

from __future__ import annotations

import numpy as np

from namm_llm.errors import ModelError
from namm_llm.models.gguf.file import GgufFile


class Sizes:
    """The numbers that every architecture has, checked against each other and the tensors."""

    def __init__(self, file: GgufFile, prefix: str) -> None:
        metadata = file.metadata
        self.layers = metadata.integer(f"{prefix}.block_count", least=1)
        self.hidden = metadata.integer(f"{prefix}.embedding_length", least=1)
        self.inner = metadata.integer(f"{prefix}.feed_forward_length", least=1)
        self.heads = metadata.integer(f"{prefix}.attention.head_count", least=1)
        self.kv_heads = kv_heads(file, f"{prefix}.attention.head_count_kv", self.heads)
        self.positions = metadata.integer(f"{prefix}.context_length", least=1)
        self.head_dim = metadata.integer(
            f"{prefix}.attention.key_length", max(1, self.hidden // self.heads), least=2
        )
        values = metadata.integer(f"{prefix}.attention.value_length", self.head_dim, least=1)
        self.rotated = metadata.integer(f"{prefix}.rope.dimension_count", self.head_dim, least=2)
        self.vocabulary = self._vocabulary(file)
        if values != self.head_dim:
            raise ModelError(
                f"{file.path} has keys of {self.head_dim} numbers and values of {values}."
            )
        if (
            self.heads % self.kv_heads
            or self.head_dim % 2
            or not 2 <= self.rotated <= self.head_dim
        ):
            raise ModelError(
                f"{file.path} is damaged: {self.heads} heads, {self.kv_heads} key-value heads of "
                f"{self.head_dim} numbers, {self.rotated} of them rotated."
            )
        self._check_layers(file)

    def _vocabulary(self, file: GgufFile) -> int:
        """Rows of the embedding."""
        info = file.tensors.get("token_embd.weight")
        if info is None or len(info.shape) != 2 or info.shape[1] != self.hidden:
            shape = "is missing" if info is None else f"has the shape {list(info.shape)}"
            raise ModelError(
                f"{file.path} is damaged: token_embd.weight {shape}; expected rows of "
                f"{self.hidden}."
            )
        return info.shape[0]

    def _check_layers(self, file: GgufFile) -> None:
        found = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
        # the count first: a damaged one could be billions
        if self.layers != len(found) or found != {str(number) for number in range(self.layers)}:
            raise ModelError(
                f"{file.path} is damaged: it describes {self.layers} layers and holds {len(found)}."
            )
        for name, shape in (
            ("blk.0.ffn_down.weight", (self.hidden, self.inner)),
            ("blk.0.attn_output.weight", (self.hidden, self.heads * self.head_dim)),
        ):
            info = file.tensors.get(name)
            if info is None or info.shape != shape:
                found_shape = "is missing" if info is None else f"has the shape {list(info.shape)}"
                raise ModelError(
                    f"{file.path} is damaged: {name} {found_shape}; expected {list(shape)}."
                )


def kv_heads(file: GgufFile, key: str, heads: int) -> int:
    """One number, or the same for every layer."""
    value = file.metadata.get(key, heads)
    if isinstance(value, np.ndarray):
        different = {int(number) for number in value}
        if len(different) != 1:
            raise ModelError(
                f"{file.path} has layers with different numbers of key-value heads ({key})."
            )
        value = different.pop()
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= heads:
        raise ModelError(f"{file.path} says {key} = {value!r}, which is not from 1 to {heads}.")
    return value
