"""The one dispatch table of kernels: which computation runs a kernel of which module, and when.

Kernels are optional. Every entry has a definition in plain torch, which `kernel` answers None for;
Triton kernels run on CUDA where triton is installed (extra `gpu`). Each is tested against its
definition in Triton's interpreter, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from namm_llm.tokens import HeadTokens, RaggedTokens

_TRITON = "namm_llm.attention.triton"
_KERNELS = {  # computation -> (module, function); the module is imported when it is first used
    "gather": (f"{_TRITON}.compact", "gather"),
    "grouped_attention": (f"{_TRITON}.grouped", "grouped_attention"),
    "varlen_attention": (f"{_TRITON}.ragged", "attend"),
    "sum": (f"{_TRITON}.observe", "total"),
    "spectrogram": (f"{_TRITON}.observe", "spectrogram"),
    "max_replayed_attention": (f"{_TRITON}.replay", "max_attention"),
}


@lru_cache(maxsize=1)
def _installed() -> bool:
    return find_spec("triton") is not None


def usable(tensor: Tensor) -> bool:
    """Whether kernels compute on this tensor."""
    return tensor.is_cuda and _installed()


def kernel(name: str | None, tensor: Tensor) -> Callable[..., Any] | None:
    """The kernel of this name for computing on `tensor`; None where plain torch does."""
    if name is None or not usable(tensor):
        return None
    module, function = _KERNELS[name]
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def gather(heads: Sequence[HeadTokens], keep: Sequence[Tensor | None]) -> RaggedTokens:
    """`RaggedTokens.gather`, with a kernel where one can be used."""
    gathered: RaggedTokens = (kernel("gather", heads[0].keys) or RaggedTokens.gather)(heads, keep)
    return gathered
