"""`Domain`: one model and what it reads, as a NAMM learns from it and is judged on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from namm_lab.train.collection import FeatureSample
from namm_llm import CacheConfig
from namm_llm.cache import EvictionEvent


class Domain(ABC):
    """Text, films or episodes."""

    name: str
    interval: int
    """Tokens between two eviction steps."""

    @abstractmethod
    def samples(self, config: CacheConfig, seed: int, count: int) -> list[FeatureSample]:
        """What a NAMM sees of `count` documents under `config`, which it manages, with the
        attention that later tokens pay.
        """

    @abstractmethod
    def likelihoods(self, configs: Sequence[CacheConfig], seed: int, count: int) -> Tensor:
        """How likely the right answers or actions are after `count` documents under each of
        `configs`: `[configs]`, geometric means.
        """


class Notes:
    """The eviction steps of a cache, as a callback."""

    def __init__(self) -> None:
        self.events: list[EvictionEvent] = []

    def __call__(self, event: EvictionEvent) -> None:
        self.events.append(event)

    def samples(self, target: Callable[[EvictionEvent, int], Tensor]) -> Iterator[FeatureSample]:
        """One for each step, layer and KV head. target: of the event's head of that number, by
        position.
        """
        for event in self.events:
            for head, tokens in enumerate(event.heads):
                ages = event.seen - 1 - tokens.positions
                paid = target(event, head)[tokens.positions.long()]
                yield FeatureSample(tokens.state, ages, paid, event.layer * len(event.heads) + head)


def for_rows(configs: Sequence[CacheConfig], count: int) -> list[CacheConfig]:
    """Each of `configs` for `count` documents, one setting after the other."""
    return [config for config in configs for _ in range(count)]


def mean_likelihoods(logs: Tensor, rows: int) -> Tensor:
    """Mean log-likelihoods `[rows * B]` of single documents to geometric means `[rows]`."""
    return torch.exp(logs.view(rows, -1).double().mean(1))
