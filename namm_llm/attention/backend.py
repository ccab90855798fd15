"""Triton kernels for what the plain torch code of this part defines; they run on CUDA where triton
is installed (extra `gpu`).

`usable` is the one place that decides. The modules beside it import triton and are imported only
behind it; each is tested against its definition in Triton's interpreter, on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

from torch import Tensor

from namm_llm.tokens import HeadTokens, RaggedTokens


@lru_cache(maxsize=1)
def _installed() -> bool:
    return find_spec("triton") is not None


def usable(tensor: Tensor) -> bool:
    """Whether kernels compute on this tensor; else the plain torch code does."""
    return tensor.is_cuda and _installed()


def takes_hop(hop: int) -> bool:
    """Whether the spectrogram's kernel is made for hops of so many queries."""
    return hop >= 16 and hop & (hop - 1) == 0  # rows of a tile that tensor cores multiply


def gather(segments: Sequence[HeadTokens], keep: Sequence[Tensor | None]) -> RaggedTokens:
    """`RaggedTokens.gather`, with a kernel where one can be used."""
    if not usable(segments[0].keys):
        return RaggedTokens.gather(segments, keep)
    from namm_llm.attention.triton import compact

    return compact.gather(segments, keep)
