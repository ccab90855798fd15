"""Modules with packed weights, made of the bytes of a GGUF file or of float modules."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from namm_llm.errors import UsageError
from namm_llm.models.packed.choice import Backend, backend
from namm_llm.models.packed.embedding import PackedEmbedding
from namm_llm.models.packed.formats import FORMATS, Fields, format_of
from namm_llm.models.packed.int4 import Int4Weights
from namm_llm.models.packed.linear import PackedLinear
from namm_llm.models.packed.quantize import quantise
from namm_llm.models.packed.weights import PackedWeights, TiledWeights

_HALVES = {"F16": torch.float16, 1: torch.float16, "BF16": torch.bfloat16, 30: torch.bfloat16}


class Packer:
    """Makes the modules of one model; a head that is the embedding's table shares its memory."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        """dtype: of the embeddings that are looked up."""
        self._dtype = dtype
        self._tables: dict[tuple[int, str, tuple[int, int]], PackedWeights] = {}

    def linear(
        self, raw: Tensor, ggml_type: int | str, shape: tuple[int, int], bias: Tensor | None = None
    ) -> PackedLinear | None:
        """See `make_linear`."""
        key = (raw.data_ptr(), str(ggml_type), shape)
        weights = self._tables.get(key) or pack(raw, ggml_type, shape)
        return None if weights is None else PackedLinear([weights], bias)

    def embedding(
        self, raw: Tensor, ggml_type: int | str, shape: tuple[int, int], scale: float = 1.0
    ) -> PackedEmbedding | None:
        """The table [tokens, width], its rows times `scale`; None as for `make_linear`."""
        weights = pack(raw, ggml_type, shape)
        if weights is None:
            return None
        self._tables[raw.data_ptr(), str(ggml_type), shape] = weights
        return PackedEmbedding(weights, dtype=self._dtype, scale=scale)


def make_linear(
    raw: Tensor, ggml_type: int | str, shape: tuple[int, int], bias: Tensor | None = None
) -> PackedLinear | None:
    """A linear map of packed rows.

    Args:
        raw: uint8 [out, bytes of a row]: whole blocks, as in the file. Copied.
        ggml_type: GGML's number or name of the format.
        shape: (out, in).
        bias: [out], or None.

    Returns:
        None if there is no packed kernel for the type here: then expand this matrix.

    Raises:
        UsageError: the bytes do not match the shape.
    """
    weights = pack(raw, ggml_type, shape)
    return None if weights is None else PackedLinear([weights], bias)


def from_linear(linear: nn.Linear, bits: Literal[4, 8]) -> PackedLinear | None:
    """A linear map with its weights quantised to 4 or 8 bits in groups of 32 columns.

    None, and then keep it, without packed kernels here or if 32 does not divide its width.
    """
    weights = _quantised(linear.weight, bits)
    return None if weights is None else PackedLinear([weights], linear.bias)


def from_embedding(
    embedding: nn.Embedding, bits: Literal[4, 8], scale: float = 1.0
) -> PackedEmbedding | None:
    """The same for an embedding: its rows come out in the dtype of its table."""
    weights = _quantised(embedding.weight, bits)
    if weights is None:
        return None
    return PackedEmbedding(weights, dtype=embedding.weight.dtype, scale=scale)


def pack(raw: Tensor, ggml_type: int | str, shape: tuple[int, int]) -> PackedWeights | None:
    """The weights alone; see `make_linear`."""
    if backend() is Backend.OFF:
        return None
    name = ggml_type.upper() if isinstance(ggml_type, str) else ggml_type
    if name in _HALVES:
        _check(raw, 2 * shape[1], shape, name)
        if backend() is not Backend.COMPILED:
            return None
        return TiledWeights.of_rows(raw.contiguous().clone().view(_HALVES[name]))
    format = format_of(name)
    if format is None or shape[1] % format.block:
        return None
    _check(raw, shape[1] // format.block * format.nbytes, shape, format.name)
    if backend() is Backend.COMPILED:
        return TiledWeights.of_blocks(raw, format, shape[1])
    return Int4Weights.of_blocks(raw, format)


def _quantised(weight: Tensor, bits: Literal[4, 8]) -> PackedWeights | None:
    if backend() is Backend.OFF or weight.shape[1] % 32:
        return None
    return _of(quantise(weight.detach(), FORMATS["Q4_1" if bits == 4 else "Q8_0"]))


def _of(fields: Fields) -> PackedWeights:
    """In the layout of this process's kernels."""
    return TiledWeights.of(fields) if backend() is Backend.COMPILED else Int4Weights.of(fields)


def _check(raw: Tensor, width: int, shape: tuple[int, int], name: int | str) -> None:
    if raw.dtype is not torch.uint8 or tuple(raw.shape) != (shape[0], width):
        raise UsageError(
            f"{name} weights of shape {list(shape)} take uint8 [{shape[0]}, {width}], "
            f"not {raw.dtype} {list(raw.shape)}."
        )
