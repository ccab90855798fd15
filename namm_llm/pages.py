"""Pages of memory on a CPU: tensors in pages of their own, and free pages for the system.

What stays for long between what comes and goes leaves holes in malloc's heap, which nothing else
fits into. Pages of their own go back to the system as soon as the tensor is freed.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys

import torch
from torch import Tensor

# smaller ones stay in the heap: a process may have some ten thousand mappings
_LEAST_NBYTES = 256 * 1024


def paged(like: Tensor, rows: int) -> Tensor:
    """An uninitialised tensor of `rows` rows shaped, typed and placed as those of `like`; on a CPU,
    if it is large, in pages of its own.
    """
    shape = (rows, *like.shape[1:])
    nbytes = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or nbytes < _LEAST_NBYTES:
        return like.new_empty(shape)
    try:
        pages = _map(nbytes)
    except OSError:  # no more mappings; the heap may have room
        return like.new_empty(shape)
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)


def release_free_pages() -> None:
    """Give the free pages of malloc's heap back to the system, where it is glibc's."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _map(nbytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
