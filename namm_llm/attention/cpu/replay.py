"""Query replay by a compiled kernel, on the CPU.

`Observation.max_replayed_attention` is the definition. The kernel rounds queries and keys to 16-bit
codes, which puts a logarithm off by some thousandths: a tenth of what bfloat16 would.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from namm_llm.native import load as load_library

_TOLERANCE = 1e-2  # of a logarithm


def max_attention(queries: Tensor, keys: Tensor, *, scale: float) -> Tensor | None:
    """The largest softmax weight `[N]`, float32, of each key `[N, D]` over queries `[R, Q, D]`
    times `scale`; None if the kernel does not take these tensors.
    """
    kernel = load()
    if kernel is None or keys.shape[1] % 2 or scale != 1.0:
        return None
    return _run(kernel, queries.flatten(0, 1), keys)


@functools.cache
def load() -> Any:
    """The kernel, or None if there is none here, or if it gives other numbers than torch."""
    library = load_library()
    if isinstance(library, str):
        return None
    kernel, address, number = library.functions.namm_replay, ctypes.c_void_p, ctypes.c_int64
    kernel.argtypes = [address, number, address, number, number, address, ctypes.c_int]
    return kernel if agrees(kernel) else None


def agrees(kernel: Any) -> bool:
    """Whether the kernel gives what torch gives, also with one number much larger than others."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(count, 20, generator=generator) for count in (53, 101))
    keys[:, 3] *= 30
    found, wanted = _run(kernel, queries, keys), (queries @ keys.T).log_softmax(-1).amax(0)
    return torch.allclose(found.log(), wanted, rtol=_TOLERANCE, atol=_TOLERANCE)


def _run(kernel: Any, queries: Tensor, keys: Tensor) -> Tensor:
    queries, keys = queries.float().contiguous(), keys.float().contiguous()
    out = keys.new_empty(len(keys))
    sizes = len(keys), keys.shape[1]
    threads = torch.get_num_threads()
    if kernel(queries.data_ptr(), len(queries), keys.data_ptr(), *sizes, out.data_ptr(), threads):
        raise MemoryError("no memory for query replay")
    return out
