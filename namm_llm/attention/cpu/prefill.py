"""Attention of many new tokens by a compiled kernel, in blocks of queries and keys.

`namm_llm.attention.grouped` is the definition.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from namm_llm.attention.grouped import by_torch
from namm_llm.native import load as load_library
from namm_llm.tokens import HeadTokens, RaggedTokens

_Address, _Number = ctypes.c_void_p, ctypes.c_int64
_TOLERANCE = 1e-5


class _Prefill(ctypes.Structure):
    """`prefill_t` of native/kernels/prefill.h."""

    _fields_ = (
        ("queue", _Number * 5),
        *(
            (name, _Address)
            for name in "query keys values window_keys window_values starts out lse".split()
        ),
        *((name, _Number) for name in "query_head query_token window_head".split()),
        *((name, _Number) for name in "heads groups tokens window size".split()),
        ("scale", ctypes.c_double),
        ("filled", _Number * 4),
    )


def attend(
    query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, *, scale: float
) -> tuple[Tensor, Tensor] | None:
    """See `grouped.grouped_attention`; None if the kernel does not take these tensors."""
    kernel = load()
    if kernel is None or not _takes(query, retained, keys, values):
        return None
    return _run(kernel, query, retained, keys, values, scale)


@functools.cache
def load() -> Any:
    """The kernel, or None if there is none here, or if it gives other numbers than torch."""
    library = load_library()
    if isinstance(library, str):
        return None
    kernel, size = library.functions.namm_prefill, library.functions.namm_prefill_bytes
    kernel.argtypes, size.restype = [_Address, ctypes.c_int], _Number
    return kernel if size() == ctypes.sizeof(_Prefill) and agrees(kernel) else None


def agrees(kernel: Any) -> bool:
    """Whether the kernel gives what torch gives, over blocks that are full and that are not."""
    generator = torch.Generator().manual_seed(0)
    heads = []
    for count in (0, 3, 130):
        key, value = torch.randn(2, count, 32, generator=generator)
        at = torch.arange(count, dtype=torch.int32)
        heads.append(HeadTokens(key, value, at, key.new_empty(count, 0)))
    retained = RaggedTokens.gather(heads, [None] * len(heads))
    query = torch.randn(6, 37, 32, generator=generator)
    keys, values = torch.randn(2, 3, 150, 32, generator=generator)
    found = _run(kernel, query, retained, keys, values, 0.3)
    wanted = by_torch(query, retained, keys, values, scale=0.3)
    return all(
        torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)
        for one, other in zip(found, wanted, strict=True)
    )


def _takes(query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor) -> bool:
    size = query.shape[-1]
    return (
        query.dtype is keys.dtype is values.dtype is retained.dtype is torch.float32
        and size % 32 == 0
        and size == keys.shape[-1] == values.shape[-1]
        and query.stride(2) == 1
        and keys.stride() == values.stride()
        and keys.stride()[1:] == (size, 1)
        and retained.is_contiguous
        and not (query.requires_grad and torch.is_grad_enabled())
    )


def _run(
    kernel: Any, query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    heads, new, size = query.shape
    out = query.new_empty(heads, new, size)
    lse = query.new_empty(heads, new)
    floats = retained.floats()
    job = _Prefill(
        query=query.data_ptr(),
        keys=floats.keys.data_ptr(),
        values=floats.values.data_ptr(),
        window_keys=keys.data_ptr(),
        window_values=values.data_ptr(),
        starts=retained.addresses[3],
        out=out.data_ptr(),
        lse=lse.data_ptr(),
        query_head=query.stride(0),
        query_token=query.stride(1),
        window_head=keys.stride(0),
        heads=heads,
        groups=keys.shape[0],
        tokens=new,
        window=keys.shape[1],
        size=size,
        scale=scale,
    )
    if kernel(ctypes.addressof(job), torch.get_num_threads()):
        raise MemoryError("no memory for attention")
    return out, lse
