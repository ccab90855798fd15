"""What the kernels share: sizes of tiles, and the product of two of them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LEAST = 16  # rows of the smallest tile that tensor cores multiply
# Triton's interpreter multiplies the bit patterns of bfloat16 as integers; widening them first
# changes no number
_WIDENS = tl.constexpr(triton.knobs.runtime.interpret)


def tile(size: int) -> int:
    """Rows of the smallest tile that holds `size` of them: tiles are powers of two."""
    return max(_LEAST, 1 << (size - 1).bit_length())


def stages(*tensors: Tensor) -> int:
    """Tiles that are loaded ahead: float32 ones fill the shared memory of most cards alone."""
    return 1 if any(tensor.dtype == torch.float32 for tensor in tensors) else 2


@triton.jit
def product(a, b):
    """`a @ b` in float32: exact products of half precision, float32 as three products of tf32 (as
    good as float32).
    """
    if _WIDENS:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="tf32x3")
