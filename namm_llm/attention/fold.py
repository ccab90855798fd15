"""What an `Observation` folds attention with: a running summary of the attention that each token
received, a few numbers a token, so that no attention matrix is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Fold(Protocol):
    """A summary `[N, W]` of N tokens that attention rows `[Q, N]` are folded into, query after
    query.

    `Sum` is one; a NAMM's `Spectrogram` another. Another one is a class with these members; it
    needs no kernel.
    """

    @property
    def hop(self) -> int:
        """Queries of a hop; only whole ones are folded."""

    @property
    def overlap(self) -> int:
        """Queries before the first new one that `update` sees again."""

    @property
    def kernel(self) -> str | None:
        """Name of its kernel in `namm_llm.attention.backend`, if there is one."""

    def kernel_arguments(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of its kernel, in addition to the observation and the state."""

    def update(self, state: Tensor, rows: Tensor) -> Tensor:
        """The new summary `[N, W]`, float32.

        state: the summary so far `[N, W]`. rows: `[overlap + h * hop, N]`, float32: the attention
        of `overlap` queries that are folded already, then of the new ones.
        """


@dataclass(frozen=True)
class Sum:
    """Sum of the attention received: one number a token."""

    hop: int = 1
    overlap: int = 0
    kernel: str | None = "sum"

    def kernel_arguments(self, device: torch.device) -> dict[str, Any]:
        """None."""
        return {}

    def update(self, state: Tensor, rows: Tensor) -> Tensor:
        """state `[N, 1]`, rows `[Q, N]`."""
        return state + rows.sum(0)[:, None]
