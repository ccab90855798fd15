"""`StaticDecoder`: decoding in shapes that never change between two eviction steps, which a CUDA
graph records once and repeats.

The window has buffers for a whole interval from the beginning and lengths are numbers on the
device, so nothing of a step depends on the host: it starts no allocation, waits for nothing and
copies nothing back. An eviction step runs the normal code, and the graph is recorded again: that is
one token in an interval, and so retained tokens need no copy in buffers that stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from namm_llm.cache.cache import ManagedCache
from namm_llm.cache.transformers import prepare_model
from namm_llm.engine.forward import out_of_memory, step
from namm_llm.engine.graph.counters import StepCounters
from namm_llm.engine.graph.host_copy import HostCopy
from namm_llm.engine.graph.layer import StaticLayer, StaticSequence
from namm_llm.engine.graph.recorder import GraphRunner
from namm_llm.errors import CacheError


class StaticDecoder:
    """A batch in fixed shapes: caches of one sequence each, decoded together.

    `leave` gives a cache back as it is then; those that were given stay as they were.

    graph: record a CUDA graph and repeat it; else the same step runs eagerly, on any device.
    refused: told why a graph could not be recorded, after which the step runs eagerly; without it
    the error is raised. Raises CacheError for caches that cannot be decoded like this: see
    `why_not_static`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *caches: ManagedCache,
        graph: bool = True,
        refused: Callable[[Exception], None] | None = None,
    ) -> None:
        reason = why_not_static(model, *caches)
        device = next(model.parameters()).device
        if reason or (graph and device.type != "cuda"):
            reason = (
                reason
                or f"CUDA graphs need a model on a GPU, this one is on {device}; pass graph=False"
            )
            raise CacheError(f"the model cannot be decoded in fixed shapes: {reason}")
        prepare_model(model)
        self.runs_ahead = True
        self._model = model
        self._going = [_Row(cache.fork()) for cache in caches]
        self._rows = list(
            self._going
        )  # those that have left stay in the shapes until the next recording
        self._runner = GraphRunner(device, record=graph, refused=refused or _raise)
        self._arrange()

    def enter(self, cache: ManagedCache, text: object = None) -> None:
        """One more sequence, the last row from now on; the shapes are made anew. text: unused,
        nothing is guessed here.
        """
        self._going.append(_Row(cache.fork()))
        self._arrange()

    def step(self, tokens: Tensor) -> Tensor:
        """Logits `[B, V]` after one more token `[B, 1]` of each sequence; the next step may write
        over them.

        An eviction step that the tokens before made due comes first; else nothing waits. Raises
        ModelError if the device runs out of memory.
        """
        try:
            return self._step(tokens)
        except torch.OutOfMemoryError as error:
            longest = max(row.counters.seen for row in self._rows)
            nbytes = sum(row.cache.nbytes for row in self._rows)
            raise out_of_memory(longest, len(tokens), nbytes) from error

    @torch.no_grad()
    def _step(self, tokens: Tensor) -> Tensor:
        due = [row for row in self._going if row.counters.is_due]
        for row in due:
            row.evict()
        if due or 2 * len(self._going) < len(self._rows):
            self._arrange()
        for row, token in zip(self._going, tokens, strict=True):
            row.token.copy_(token[None])
        self._runner.run(self._forward)
        for row in self._going:
            row.counters.tick()
        assert self._logits is not None
        if len(self._going) == len(self._rows):
            return self._logits
        return torch.stack(
            [
                logits
                for row, logits in zip(self._rows, self._logits, strict=True)
                if row in self._going
            ]
        )

    def fetch(self, tokens: Tensor) -> Callable[[], list[int]]:
        """Start to bring tokens, int64 `[B]`, to the host; the function waits for them alone."""
        return HostCopy(tokens).receive

    @torch.no_grad()
    def leave(self, row: int = 0, *, without_last: bool = False) -> ManagedCache:
        """The cache of one sequence, which is decoded no further, in storage of its own.

        without_last: less its newest token.
        """
        left = self._going.pop(row)
        left.counters.tick(-without_last)
        left.leave()
        return left.cache

    def greedy(self, tokens: Tensor, count: int) -> Tensor:
        """The `count` most likely tokens `[B, count]` after `tokens` `[B, 1]`, on the device; read
        them all at once.
        """
        found = []
        for _ in range(count):
            tokens = self.step(tokens).argmax(-1, keepdim=True)
            found.append(tokens)
        return torch.cat(found, dim=1)

    def _arrange(self) -> None:
        """Shapes for the sequences that are left; the next step is the first of a new recording."""
        self._rows = list(self._going)
        self._logits: Tensor | None = None
        seen = max(row.counters.seen for row in self._rows)
        self._layers = [
            StaticLayer(sequences, seen)
            for sequences in zip(*(row.layers for row in self._rows), strict=True)
        ]
        self._runner.forget()

    def _forward(self) -> None:
        logits = step(
            self._model,
            Cache(layers=cast("list[Any]", self._layers)),
            torch.cat([row.token for row in self._rows]),
            torch.cat([row.counters.position for row in self._rows]),
        )
        if self._logits is None:
            self._logits = torch.empty_like(logits)
        self._logits.copy_(logits)
        for row in self._rows:
            row.counters.advance()


class _Row:
    """One sequence in all layers."""

    def __init__(self, cache: ManagedCache) -> None:
        self.cache = cache
        sequences = [layer.sequences[0] for layer in cache.managed]
        self.counters = StepCounters(
            sequences[0], max(len(sequence.retained.lengths) for sequence in sequences)
        )
        self.layers = [StaticSequence(layer, self.counters) for layer in cache.managed]
        self.token = torch.zeros(1, 1, dtype=torch.int64, device=sequences[0].retained.keys.device)
        """Its next token, int64 `[1, 1]`."""

    def evict(self) -> None:
        """All layers stand at the same token, so the order of the normal path does not matter."""
        self._evict_due()
        for layer in self.layers:
            layer.load()
        self.counters.set(self.cache.managed[0].sequences[0])

    def leave(self) -> None:
        """The cache has it all; what the device still counts is of no use."""
        self._evict_due()
        for layer in self.layers:
            layer.leave()
        self.counters.stop()

    def _evict_due(self) -> None:
        for layer in self.layers:
            layer.store_back()
        if self.counters.is_due:
            for managed in self.cache.managed:
                self.cache.evict_due(managed, 0)


def why_not_static(model: PreTrainedModel, *caches: ManagedCache) -> str | None:
    """What keeps a model, and caches of it, from being decoded in fixed shapes; None if nothing
    does.
    """
    devices = sorted({str(weight.device) for weight in model.parameters()})
    if len(devices) > 1:
        return f"its weights are on {', '.join(devices)}, and only one device will do"
    for cache in caches or (ManagedCache.for_model(model),):
        if len(cache.managed) < len(cache.layers):
            return "it has layers with a sliding window"
    for cache in caches:
        if (rows := len(cache.managed[0].sequences)) != 1:
            return f"a cache of one sequence that has been read is needed, one holds {rows}"
    return None


def _raise(error: Exception) -> None:
    raise CacheError(
        f"a CUDA graph of this model could not be recorded ({first_line(error)}); pass graph=False."
    ) from error


def first_line(error: Exception) -> str:
    """What an error of torch says first."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
