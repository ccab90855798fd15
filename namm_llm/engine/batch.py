"""`Batch`: sequences that are decoded together, one token of each at a time, until they leave."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.engine.forward import out_of_memory
from namm_llm.engine.graph.decoder import StaticDecoder


class Batch(Protocol):
    """runs_ahead: whether the newest token of a sequence that leaves can be taken back."""

    @property
    def runs_ahead(self) -> bool:
        """See above."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits `[B, V]` after one more token `[B, 1]` of each sequence that is left."""

    def leave(self, at: int, *, without_last: bool = False) -> ManagedCache:
        """The cache of the sequence `at`, which is decoded no further; those behind it move up."""


class StaticBatch:
    """In fixed shapes, see `StaticDecoder`."""

    runs_ahead = True

    def __init__(self, decoder: StaticDecoder) -> None:
        self._decoder = decoder

    def step(self, tokens: Tensor) -> Tensor:
        """As of `Batch`."""
        try:
            return self._decoder.step(tokens)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self._decoder.longest, len(tokens), self._decoder.nbytes) from error

    def leave(self, at: int, *, without_last: bool = False) -> ManagedCache:
        """As of `Batch`."""
        return self._decoder.leave(at, without_last=without_last)
