"""ggml's K formats of 2 and 3 bits: blocks of 256 weights, each sub-block of 16 with a scale.

Each function takes blocks [n, bytes] of uint8 and returns weights [n, 256] of float32.
Source: block_q2_K and block_q3_K of ggml-common.h.
"""

from __future__ import annotations

import torch
from torch import Tensor

from namm_llm.models.gguf.bits import halves, nibbles, pairs_of_bits


def q2_k(blocks: Tensor) -> Tensor:
    """16 scales and minima of 4 bits, 256 weights of 2 bits, then the scale of each."""
    scales = (halves(blocks, 80) * (blocks[:, :16] & 15)).unsqueeze(-1)
    minima = (halves(blocks, 82) * (blocks[:, :16] >> 4)).unsqueeze(-1)
    return (scales * _two_bits(blocks[:, 16:80]) - minima).flatten(1)


def q3_k(blocks: Tensor) -> Tensor:
    """256 high bits, 256 pairs of low bits, 16 scales of 6 bits, then the scale of these."""
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device).view(1, 8, 1)
    high = (blocks[:, None, :32] >> shifts) & 1  # [n, 8 groups of 32, 32]
    whole = (_two_bits(blocks[:, 32:96]) | (high << 2).reshape(-1, 16, 16)).to(torch.int8) - 4
    low, top = nibbles(blocks[:, 96:104]), pairs_of_bits(blocks[:, 104:108]).flatten(1)
    scales = halves(blocks, 108) * ((low | top.to(torch.int8) << 4) - 32)
    return (scales.unsqueeze(-1) * whole).flatten(1)


def _two_bits(packed: Tensor) -> Tensor:
    """[n, 64] bytes as [n, 16 sub-blocks, 16] numbers of 2 bits."""
    return pairs_of_bits(packed.reshape(-1, 32)).reshape(-1, 16, 16)
