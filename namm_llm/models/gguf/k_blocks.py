"""ggml's K formats: blocks of 256 weights whose sub-blocks of 16 or 32 have scales of their own.

Each function takes blocks [n, bytes] of uint8 and returns weights [n, 256] of float32.
Source: block_q2_K to block_q6_K of ggml-common.h.
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


def q4_k(blocks: Tensor) -> Tensor:
    """Two scales, 8 scales and minima of 6 bits, 256 weights of 4 bits."""
    scales, minima = scales_and_minima(blocks)
    whole = nibbles(blocks[:, 16:].reshape(-1, 4, 32)).view(-1, 8, 32)
    return (scales * whole - minima).flatten(1)


def q5_k(blocks: Tensor) -> Tensor:
    """As q4_k, with 256 fifth bits before the weights.

    Bit j of byte i belongs to weight i of sub-block j.
    """
    scales, minima = scales_and_minima(blocks)
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device).view(1, 8, 1)
    high = ((blocks[:, None, 16:48] >> shifts) & 1).to(torch.int8) << 4
    whole = nibbles(blocks[:, 48:].reshape(-1, 4, 32)).view(-1, 8, 32) | high
    return (scales * whole - minima).flatten(1)


def q6_k(blocks: Tensor) -> Tensor:
    """256 low nibbles, 256 pairs of high bits, 16 scales of 8 bits, then the scale of these."""
    low = nibbles(blocks[:, :128].reshape(-1, 2, 64)).view(-1, 2, 4, 32)
    high = pairs_of_bits(blocks[:, 128:192].reshape(-1, 32)).view(-1, 2, 4, 32)
    whole = ((low | (high << 4).to(torch.int8)) - 32).view(-1, 16, 16)
    scales = halves(blocks, 208) * blocks[:, 192:208].contiguous().view(torch.int8)
    return (scales.unsqueeze(-1) * whole).flatten(1)


def scales_and_minima(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of the 8 sub-blocks of Q4_K and Q5_K, each [n, 8, 1] in float32."""
    first, second, both = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat([first & 63, (both & 15) | (first >> 6 << 4)], -1)
    minima = torch.cat([second & 63, (both >> 4) | (second >> 6 << 4)], -1)
    return (halves(blocks, 0) * scales).unsqueeze(-1), (halves(blocks, 2) * minima).unsqueeze(-1)


def _two_bits(packed: Tensor) -> Tensor:
    """[n, 64] bytes as [n, 16 sub-blocks, 16] numbers of 2 bits."""
    return pairs_of_bits(packed.reshape(-1, 32)).reshape(-1, 16, 16)
