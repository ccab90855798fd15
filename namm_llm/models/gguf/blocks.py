"""The block formats of ggml: how weights are packed in a GGUF file, and how they become floats.

A row of a matrix is cut into blocks of 32 or 256 weights; each block holds its scales and its
integers. Blocks never cross rows, so rows can be gathered and split without unpacking them.

Source: ggml's block structures (ggml-common.h) and reference dequantisation (ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from namm_llm.models.gguf import k_blocks
from namm_llm.models.gguf.bits import halves, nibbles
from namm_llm.models.packed.formats import FORMATS, Format, parse

_CHUNK_WEIGHTS: Final = 1 << 22  # unpacked at a time: temporaries stay at some tens of megabytes
_IQ4_LEVELS: Final = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True, kw_only=True)
class BlockFormat:
    """One way to pack weights."""

    name: str
    """As ggml names it, such as Q4_1."""
    block_size: int
    """Weights in a block."""
    block_bytes: int
    """Bytes of a block."""
    unpack: Callable[[Tensor], Tensor]
    """Blocks [n, block_bytes] of uint8 to weights [n, block_size] of float32."""
    scales: tuple[int, ...] = ()
    """Offsets of the block's float16 scales, which no sound file has infinite or NaN."""
    dtype: torch.dtype | None = None
    """Of weights that are not packed, but stored as they are."""


def _plain(name: str, dtype: torch.dtype) -> BlockFormat:
    return BlockFormat(
        name=name,
        block_size=1,
        block_bytes=dtype.itemsize,
        unpack=lambda blocks: blocks.view(dtype).float(),
        dtype=dtype,
    )


def _iq4_nl(blocks: Tensor) -> Tensor:
    levels = torch.tensor(_IQ4_LEVELS, dtype=torch.float32, device=blocks.device)
    return halves(blocks, 0) * levels[nibbles(blocks[:, 2:]).int()]


def _iq4_xs(blocks: Tensor) -> Tensor:
    levels = torch.tensor(_IQ4_LEVELS, dtype=torch.float32, device=blocks.device)
    low = torch.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], -1).flatten(1)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device)
    high = ((blocks[:, 2:4].unsqueeze(-1) >> shifts) & 3).flatten(1)
    scale = halves(blocks, 0) * ((low | high << 4).to(torch.int8) - 32)
    picked = levels[nibbles(blocks[:, 8:].reshape(-1, 16)).int()].view(-1, 8, 32)
    return (scale.unsqueeze(-1) * picked).flatten(1)


def _grouped(format: Format) -> BlockFormat:
    return _make(
        format.name,
        format.block,
        format.nbytes,
        lambda blocks: parse(blocks, format).values(),
        *format.scale_offsets,
    )


def _make(
    name: str, size: int, nbytes: int, unpack: Callable[[Tensor], Tensor], *scales: int
) -> BlockFormat:
    return BlockFormat(name=name, block_size=size, block_bytes=nbytes, unpack=unpack, scales=scales)


BLOCK_FORMATS: Final[dict[int, BlockFormat]] = {
    0: _plain("F32", torch.float32),
    1: _plain("F16", torch.float16),
    10: _make("Q2_K", 256, 84, k_blocks.q2_k, 80, 82),
    11: _make("Q3_K", 256, 110, k_blocks.q3_k, 108),
    20: _make("IQ4_NL", 32, 18, _iq4_nl, 0),
    23: _make("IQ4_XS", 256, 136, _iq4_xs, 0),
    30: _plain("BF16", torch.bfloat16),
    **{format.ggml_type: _grouped(format) for format in FORMATS.values()},
}
"""By ggml's number of the type."""

FORMATS_BY_NAME: Final = {layout.name: layout for layout in BLOCK_FORMATS.values()}

TYPE_NAMES: Final[dict[int, str]] = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
"""Types of ggml that cannot be read here."""


def dequantize(raw: Tensor, type_name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of packed bytes [..., row_bytes] (uint8) as weights [..., columns] in `dtype`."""
    layout = FORMATS_BY_NAME[type_name]
    shape = (*raw.shape[:-1], raw.shape[-1] // layout.block_bytes * layout.block_size)
    blocks = raw.reshape(-1, layout.block_bytes)
    weights = torch.empty((blocks.shape[0], layout.block_size), dtype=dtype, device=raw.device)
    step = max(1, _CHUNK_WEIGHTS // layout.block_size)
    for start in range(0, blocks.shape[0], step):
        weights[start : start + step] = layout.unpack(blocks[start : start + step])
    return weights.view(shape)


def has_finite_scales(raw: Tensor, type_name: str) -> bool:
    """Whether every scale of these rows is a finite number, which damaged weights often are not."""
    layout = FORMATS_BY_NAME[type_name]
    if layout.dtype is not None:
        return bool(raw.view(layout.dtype).isfinite().all())
    blocks = raw.reshape(-1, layout.block_bytes)
    return all(bool(((blocks[:, at + 1] & 124) != 124).all()) for at in layout.scales)
