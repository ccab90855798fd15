"""Samples through a runner: mean scores, what the cache kept of the prompts, and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from namm_lab.evaluate.intervals import interval
from namm_lab.evaluate.plan import Mode
from namm_lab.evaluate.reader import Reading, read_agnostic, read_aware, read_continuation
from namm_lab.tasks.sample import Sample
from namm_llm import CacheStats, Runner, UsageError


@dataclass(frozen=True)
class Measurement:
    """The scores of some samples under one cache setting."""

    scores: tuple[float, ...]
    """Of every question, from 0 to 1."""
    is_likelihood: bool
    """Whether they are one over perplexities, whose mean is the geometric one."""
    stats: tuple[CacheStats, ...]
    """Of the caches when the questions were asked."""
    seconds: float
    """Of reading and answering."""

    @property
    def score(self) -> float:
        """The mean score."""
        return self._mean_of(sum(self._terms) / len(self.scores))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean score."""
        low, high = interval(self._terms)
        return self._mean_of(low), self._mean_of(high)

    @property
    def whole(self) -> float:
        """Share of the questions with a score of 1."""
        return sum(score == 1.0 for score in self.scores) / len(self.scores)

    def mean(self, name: str) -> float:
        """The mean of a number of `CacheStats`."""
        return float(sum(getattr(stats, name) for stats in self.stats) / len(self.stats))

    @property
    def _terms(self) -> list[float]:
        return (
            [math.log(score) for score in self.scores] if self.is_likelihood else list(self.scores)
        )

    def _mean_of(self, mean: float) -> float:
        return math.exp(mean) if self.is_likelihood else mean


def measure(runner: Runner, samples: Sequence[Sample], mode: Mode = "agnostic") -> Measurement:
    """The samples with the runner's cache settings.

    Raises UsageError for a text that goes on in mode aware: there is no question.
    """
    goes_on = samples[0].questions[0].is_continuation
    if goes_on and mode == "aware":
        raise UsageError(
            f"nothing is asked in {samples[0].task}, so there is no mode aware to measure."
        )
    read = read_continuation if goes_on else read_aware if mode == "aware" else read_agnostic
    began = time.perf_counter()
    readings: list[Reading] = [read(runner, sample) for sample in samples]
    return Measurement(
        scores=tuple(score for reading in readings for score in reading.scores),
        is_likelihood=goes_on,
        stats=tuple(stats for reading in readings for stats in reading.stats),
        seconds=time.perf_counter() - began,
    )
