"""What policies keep of films: right answers, and tokens of a scene against its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from namm_lab.evaluate.intervals import interval
from namm_lab.film.model import TOKENS
from namm_lab.film.pictures import Film, film
from namm_lab.film.train import FRAMES, SCENES
from namm_llm import Runner
from namm_llm.inspect import kept_entries

HELD_OUT = 1_000_000  # seed of pictures that no training draws
STEPS = 8  # frames between two eviction steps
POLICIES = ("random", "streaming_llm", "h2o", "snapkv", "keydiff", "replay", "novelty")


@dataclass(frozen=True)
class Row:
    """One policy at one budget."""

    policy: str
    budget: float | None
    right: tuple[float, ...]
    """Share of right answers in each film."""
    slope: float
    """Of the logarithm of a scene's kept tokens over that of its frames: 1 is blind to repetition,
    0 gives every scene the same."""
    scenes: float
    """Share of scenes of which a head still holds something."""
    nbytes: float
    """Mean bytes of a film's cache."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.mean(self.right))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; the interval is over films, whose questions are not independent."""
        low, high = interval(self.right)
        return {
            "policy": self.policy,
            "budget": self.budget,
            "accuracy": round(self.accuracy, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "slope": round(self.slope, 3),
            "scenes": round(self.scenes, 3),
            "bytes": round(self.nbytes),
            "films": len(self.right),
        }


def held_out(count: int, frames: int = FRAMES, scenes: int = SCENES) -> list[Film]:
    """Films of pictures that were never drawn before."""
    random = np.random.default_rng(HELD_OUT)
    return [film(frames, scenes, random) for _ in range(count)]


def measure(runner: Runner, films: Sequence[Film], name: str, budget: float | None) -> Row:
    """Each film is read once, then asked for the digit on each of its colours."""
    right, scenes, nbytes = [], list[tuple[int, float, bool]](), []
    for one in films:
        memory = runner.read(one.frames)
        answers = memory.ask_many(list(one.answers), max_tokens=1, temperature=0)
        wanted = map(str, one.answers.values())
        right.append(
            float(np.mean([a.text.strip() == b for a, b in zip(answers, wanted, strict=True)]))
        )
        nbytes.append(memory.cache.nbytes)
        held = kept_entries(memory.cache).flatten(0, 1).float()[:, -TOKENS * len(one.frames) :]
        start = 0
        for length in one.lengths:
            own = held[:, TOKENS * start : TOKENS * (start + length)].sum(1)
            scenes.append((length, float(own.mean()), bool((own > 0).float().mean() > 0)))
            start += length
    seen = float(np.mean([any_held for _, _, any_held in scenes]))
    return Row(name, budget, tuple(right), _slope(scenes), seen, float(np.mean(nbytes)))


def _slope(scenes: Sequence[tuple[int, float, bool]]) -> float:
    """Least squares over lengths, each with the mean of its scenes and weighed by their number, so
    that scenes of which nothing is kept count too.
    """
    kept: dict[int, list[float]] = {}
    for length, tokens, _ in scenes:
        kept.setdefault(length, []).append(tokens)
    found = {length: float(np.mean(own)) for length, own in kept.items() if np.mean(own) > 0}
    at = np.log(list(found))
    values, weights = np.log(list(found.values())), [len(kept[length]) ** 0.5 for length in found]
    return float(np.polyfit(at, values, 1, w=weights)[0])


def table(
    folder: Path, *, count: int, budgets: Sequence[float], namms: Sequence[tuple[str, Path]] = ()
) -> Iterator[Row]:
    """Rows of all policies, the full cache first. namms: names and files of NAMMs."""
    films, base = held_out(count), Runner.load(folder, device="cpu", prefix_caches=0)
    settings: dict[str, Any] = {"interval": TOKENS * STEPS}
    yield measure(base.with_cache(**settings), films, "full", None)
    for budget in budgets:
        for policy in POLICIES:
            runner = base.with_cache(policy, budget=budget, **settings)
            yield measure(runner, films, policy, budget)
        for name, path in namms:
            runner = base.with_cache("namm", budget=budget, namm=path, **settings)
            yield measure(runner, films, name, budget)
