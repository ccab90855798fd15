"""The one dispatch table of kernels: which computation runs a kernel of which module, and when.

Kernels are optional. Every entry has a definition in plain torch, which `kernel` answers None for;
Triton kernels run on CUDA where triton is installed (extra `gpu`), those of `attention/cpu` on a
CPU where there is a compiler. Each is tested against its definition.
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
_CPU = "namm_llm.attention.cpu"
_ON_CPU = {
    "grouped_attention": (f"{_CPU}.attend", "attend"),
    "max_replayed_attention": (f"{_CPU}.replay", "max_attention"),
}


@lru_cache(maxsize=1)
def _installed() -> bool:
    return find_spec("triton") is not None


def usable(tensor: Tensor) -> bool:
    """Whether Triton's kernels compute on this tensor."""
    return tensor.is_cuda and _installed()


def kernel(name: str | None, tensor: Tensor) -> Callable[..., Any] | None:
    """The kernel of this name for computing on `tensor`; None where plain torch does.

    One for a CPU answers None itself for tensors that it does not take.
    """
    if name is None:
        return None
    if usable(tensor):
        return _function(*_KERNELS[name])
    return _function(*_ON_CPU[name]) if tensor.device.type == "cpu" and name in _ON_CPU else None


def _function(module: str, function: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def gather(heads: Sequence[Sequence[HeadTokens]], keep: Sequence[Tensor | None]) -> RaggedTokens:
    """`RaggedTokens.gather_parts`, with a kernel where one can be used."""
    first = heads[0][0]
    # the kernel moves five columns
    run = None if first.unrotated is not None else kernel("gather", first.keys)
    if run is None:
        return RaggedTokens.gather_parts(heads, keep)
    gathered: RaggedTokens = run([HeadTokens.joined(parts) for parts in heads], keep)
    return gathered
