"""Samples through a runner: mean scores, what the cache kept of the prompts, and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from namm_lab.evaluate.intervals import interval
from namm_lab.evaluate.plan import Mode
from namm_lab.evaluate.reading import Reading, read_agnostic, read_aware, read_on
from namm_lab.tasks.sample import Sample
from namm_llm.cache import CacheStats
from namm_llm.errors import UsageError
from namm_llm.runner import Runner


@dataclass(frozen=True)
class Measured:
    """scores: of every question, from 0 to 1. is_likelihood: whether they are one over
    perplexities, whose mean is the geometric one. stats: of the caches when the questions were
    asked. seconds: of reading and answering.
    """

    scores: tuple[float, ...]
    is_likelihood: bool
    stats: tuple[CacheStats, ...]
    seconds: float

    @property
    def score(self) -> float:
        """The mean."""
        return self._mean_of(sum(self._terms) / len(self.scores))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean, with 95 % confidence."""
        low, high = interval(self._terms)
        return self._mean_of(low), self._mean_of(high)

    @property
    def whole(self) -> float:
        """Share of the questions that are answered wholly right."""
        return sum(score == 1.0 for score in self.scores) / len(self.scores)

    def mean(self, name: str) -> float:
        """Of a number of `CacheStats`."""
        return float(sum(getattr(stats, name) for stats in self.stats) / len(self.stats))

    @property
    def _terms(self) -> list[float]:
        return (
            [math.log(score) for score in self.scores] if self.is_likelihood else list(self.scores)
        )

    def _mean_of(self, mean: float) -> float:
        return math.exp(mean) if self.is_likelihood else mean


def measure(runner: Runner, samples: Sequence[Sample], mode: Mode = "agnostic") -> Measured:
    """The samples with the runner's cache settings. Raises UsageError for texts that go on in mode
    aware: there is no question.
    """
    goes_on = samples[0].questions[0].is_continuation
    if goes_on and mode == "aware":
        raise UsageError(
            f"nothing is asked in {samples[0].task}, so there is no mode aware to measure."
        )
    read = read_on if goes_on else read_aware if mode == "aware" else read_agnostic
    began = time.perf_counter()
    readings: list[Reading] = [read(runner, sample) for sample in samples]
    return Measured(
        scores=tuple(score for reading in readings for score in reading.scores),
        is_likelihood=goes_on,
        stats=tuple(stats for reading in readings for stats in reading.stats),
        seconds=time.perf_counter() - began,
    )
