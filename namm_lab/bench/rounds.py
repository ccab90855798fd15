"""Contenders timed in turn: in each round every one runs once, so that whatever else the machine
does affects all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median, quantiles
from typing import Any

from namm_lab.bench.contenders import Contender, TimedReading
from namm_lab.bench.model import BenchModel
from namm_lab.bench.plan import Cell

Tick = Callable[[str], None]


@dataclass
class Timed:
    """The rounds of one contender."""

    seconds: list[float] = field(default_factory=list)
    """Of each round."""
    stages: list[tuple[dict[str, float], float]] = field(default_factory=list)
    """Seconds of each stage of an eviction step and of the round, for rounds that timed them."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """Of the cache, after the last round."""
    last: TimedReading | None = None
    """The last round's, to decode after."""

    def add(self, reading: TimedReading) -> None:
        """One more round of reading."""
        self.seconds.append(reading.seconds)
        self.numbers, self.last = reading.numbers, reading
        if reading.stages:
            self.stages.append((reading.stages, reading.seconds))


def spread(values: Sequence[float]) -> dict[str, float]:
    """median, low, q1, q3, high."""
    q1, middle, q3 = (
        quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    )
    return {"median": middle, "low": min(values), "q1": q1, "q3": q3, "high": max(values)}


def shares(timed: Timed) -> dict[str, float]:
    """What each stage, and all of them together (`policy`), took of a round; medians."""
    if not timed.stages:
        return {}
    rounds = [{**stages, "policy": sum(stages.values())} for stages, _ in timed.stages]
    return {
        name: median(
            stages[name] / seconds
            for stages, (_, seconds) in zip(rounds, timed.stages, strict=True)
        )
        for name in rounds[0]
    }


def warm_up(model: BenchModel, contenders: Sequence[Contender], cell: Cell, length: int) -> None:
    """Every contender once on a short text, untimed: kernels are compiled and the system hands out
    memory.
    """
    ids = model.ids(replace(cell, length=min(cell.length, length)))
    for contender in contenders:
        reading = contender.read(model.model, ids)
        if "decode" in contender.tasks:
            contender.decode(model.model, reading, 2)


def prefill(
    model: BenchModel, contenders: Sequence[Contender], cell: Cell, runs: int, tick: Tick
) -> list[Timed]:
    """Reading up to the first token of the answer."""
    ids = model.ids(cell)
    timed = [Timed() for _ in contenders]
    # timing a stage costs two readings of the clock on a CPU; a GPU has to be waited for, so there
    # stages are timed in a run of their own
    beside = model.device.type == "cpu"
    for number in _turns(len(contenders), runs):
        tick(f"prefill, {cell.length} tokens: {contenders[number].label}")
        timed[number].add(contenders[number].read(model.model, ids, stages=beside))
    if not beside:
        for contender, found in zip(contenders, timed, strict=True):
            reading = contender.read(model.model, ids, stages=True)
            found.stages = [(reading.stages, reading.seconds)] if reading.stages else []
    return timed


def decode(
    model: BenchModel,
    contenders: Sequence[Contender],
    cell: Cell,
    runs: int,
    tokens: int,
    tick: Tick,
    read: Mapping[str, TimedReading],
) -> list[Timed]:
    """Decoding after reading. Each contender has read once, or does; every round begins with a copy
    of that. read: by the contender's label, what was read when the prefill was timed.
    """
    ids = model.ids(cell)
    readings = []
    for contender in contenders:
        if contender.label not in read:
            tick(f"reading {cell.length} tokens to decode after: {contender.label}")
        readings.append(read.get(contender.label) or contender.read(model.model, ids))
    timed = [Timed(numbers=reading.numbers) for reading in readings]
    for number in _turns(len(contenders), runs):
        tick(f"decoding after {cell.length} tokens: {contenders[number].label}")
        timed[number].seconds.append(
            contenders[number].decode(model.model, readings[number], tokens)
        )
    return timed


def _turns(contenders: int, runs: int) -> list[int]:
    """Whose turn it is: every other round goes the other way round."""
    forward = list(range(contenders))
    return [
        number for run in range(runs) for number in (forward if run % 2 == 0 else forward[::-1])
    ]
