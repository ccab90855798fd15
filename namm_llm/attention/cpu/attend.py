"""Attention of a few new tokens in one call of a compiled kernel: all heads, retained and window.

`namm_llm.attention.grouped` is the definition. The kernel computes in float32 and reads 8-bit
tokens as 8-bit.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from namm_llm.attention.cpu import prefill
from namm_llm.attention.grouped import by_torch
from namm_llm.native import load as load_library
from namm_llm.tokens import HeadTokens, RaggedTokens

MOST_TOKENS = 16
"""New tokens that the kernel takes; for more, matrix products are faster."""
TYPES = {torch.float32: 0, torch.bfloat16: 30}
"""Types of keys and values that the kernel reads, as it numbers them."""
SEQUENCE_FIELDS = 14
"""64-bit integers of `sequence_t` in native/kernels/attend.h."""
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


class _Attend(ctypes.Structure):
    """`attend_t` of native/kernels/attend.h."""

    _fields_ = (
        ("queue", ctypes.c_int64 * 5),
        ("sequences", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in "count tokens heads groups size dtype".split()),
        ("scale", ctypes.c_double),
        ("query", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("io", ctypes.c_int64),
        ("query_strides", ctypes.c_int64 * 3),
        ("out_strides", ctypes.c_int64 * 3),
        ("filled", ctypes.c_int64 * 4),
    )


def attend(
    query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, *, scale: float
) -> tuple[Tensor, Tensor] | None:
    """See `grouped.grouped_attention`; None if the kernel does not take these tensors."""
    if query.shape[1] > MOST_TOKENS:
        return prefill.attend(query, retained, keys, values, scale=scale)
    if not _takes(query, retained, keys, values) or (kernel := load()) is None:
        return None
    return _run(kernel, query, retained, keys, values, scale)


@functools.cache
def load() -> Any:
    """The kernel, or None if there is none here, or if it gives other numbers than torch."""
    library = load_library()
    if isinstance(library, str):
        return None
    kernel, size = library.functions.namm_attend, library.functions.namm_attend_bytes
    kernel.argtypes, size.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_int64
    fits = size() == ctypes.sizeof(_Attend) + 8 * SEQUENCE_FIELDS
    return kernel if fits and agrees(kernel) else None


def agrees(kernel: Any) -> bool:
    """Whether the kernel gives what torch gives, with floats and with 8-bit tokens."""
    generator = torch.Generator().manual_seed(0)
    for dtype, quantised in (
        (torch.float32, False),
        (torch.bfloat16, False),
        (torch.float32, True),
    ):
        pairs = [torch.randn(2, n, 20, generator=generator).to(dtype) for n in (0, 3, 300)]
        retained = _ragged(pairs, quantised=quantised)
        query, keys, values = (
            torch.randn(n, t, 20, generator=generator).to(dtype)
            for n, t in ((6, 2), (3, 5), (3, 5))
        )
        found = _run(kernel, query, retained, keys, values, 0.3)
        wanted = by_torch(query, retained, keys, values, scale=0.3)
        for one, other in zip(found, wanted, strict=True):
            if not torch.allclose(one, other, rtol=_TOLERANCE[dtype], atol=_TOLERANCE[dtype]):
                return False
    return True


def _ragged(pairs: Sequence[Tensor], *, quantised: bool) -> RaggedTokens:
    """Retained tokens of keys and values `[2, N_g, D]` of each head."""
    heads = []
    for keys, values in pairs:
        at = torch.arange(len(keys), dtype=torch.int32)
        head = HeadTokens(keys, values, at, keys.new_empty(len(keys), 0))
        heads.append(head.quantised() if quantised else head)
    return RaggedTokens.gather(heads, [None] * len(heads))


def _takes(query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and query.shape[1] <= MOST_TOKENS
        and query.dtype in TYPES
        and query.dtype is keys.dtype is values.dtype is retained.dtype
        and query.shape[-1] == keys.shape[-1] == values.shape[-1]
        and query.stride(2) == 1
        and keys.stride() == values.stride()
        and keys.stride()[1:] == (keys.shape[-1], 1)
        and retained.is_contiguous
        and not (query.requires_grad and torch.is_grad_enabled())
    )


def _run(
    kernel: Any, query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    heads, new, size = query.shape
    out = query.new_empty(heads, new, size)
    lse = query.new_empty(heads, new, dtype=torch.float32)
    window = keys.data_ptr(), values.data_ptr(), keys.stride(0) // size, 0, keys.shape[1] - new
    sequence = array("q", [*retained.addresses, *window, 0, lse.data_ptr(), 0, new, 0])
    job = _Attend(
        sequences=sequence.buffer_info()[0],
        count=1,
        tokens=new,
        heads=heads,
        groups=keys.shape[0],
        size=size,
        dtype=TYPES[query.dtype],
        scale=scale,
        query=query.data_ptr(),
        out=out.data_ptr(),
        io=TYPES[query.dtype],
        query_strides=(0, query.stride(1), query.stride(0)),
        out_strides=(0, size, new * size),
    )
    if kernel(ctypes.addressof(job), torch.get_num_threads()):
        raise MemoryError("no memory for attention")
    return out, lse
