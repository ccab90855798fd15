"""Small numbers taken out of packed bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def halves(blocks: Tensor, offset: int) -> Tensor:
    """The float16 at a byte offset of every block [n, bytes], as float32 [n, 1]."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()


def nibbles(packed: Tensor) -> Tensor:
    """[n, m] bytes as [n, 2 m] numbers of 4 bits (int8): all low halves, then all high halves."""
    return torch.cat([packed & 15, packed >> 4], -1).to(torch.int8)


def pairs_of_bits(packed: Tensor) -> Tensor:
    """[n, m] bytes as [n, 4, m] numbers of 2 bits (uint8), the lowest bits first."""
    return torch.stack([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], 1)
