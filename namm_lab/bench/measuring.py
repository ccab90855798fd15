"""Sides timed in turn: in each round every side runs once, so that whatever else the machine does
meets all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from namm_lab.bench.plan import Cell
from namm_lab.bench.sides import CacheSide, TimedReading
from namm_lab.bench.subject import Subject

Tick = Callable[[str], None]


@dataclass
class Timed:
    """seconds: of each round. stages: seconds of each stage, for each round that timed them, with
    the seconds of that round.
    """

    seconds: list[float] = field(default_factory=list)
    stages: list[tuple[dict[str, float], float]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def add(self, reading: TimedReading) -> None:
        """One more round of reading."""
        self.seconds.append(reading.seconds)
        self.numbers = reading.numbers
        if reading.stages:
            self.stages.append((reading.stages, reading.seconds))


def spread(values: Sequence[float]) -> dict[str, float]:
    """median, low, q1, q3, high."""
    q1, middle, q3 = (
        quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    )
    return {"median": middle, "low": min(values), "q1": q1, "q3": q3, "high": max(values)}


def shares(timed: Timed) -> dict[str, float]:
    """What each stage, and all of them but probes (`policy`), took of a round; medians. Probes are
    texts of their own, counted apart.
    """
    if not timed.stages:
        return {}
    names = timed.stages[0][0]
    found = {
        name: median(stages[name] / seconds for stages, seconds in timed.stages) for name in names
    }
    return found | {
        "policy": median(
            (sum(stages.values()) - stages.get("probe", 0.0)) / seconds
            for stages, seconds in timed.stages
        )
    }


def warm_up(subject: Subject, sides: Sequence[CacheSide], cell: Cell, length: int) -> None:
    """Every side once on a short text, untimed: kernels are compiled and memory is got from the
    system.
    """
    ids = subject.ids(Cell(cell.quantization, cell.batch, min(cell.length, length)))
    for side in sides:
        reading = side.read(subject.model, ids)
        if "decode" in side.tasks:
            side.decode(subject.model, reading, 2)


def prefill(
    subject: Subject, sides: Sequence[CacheSide], cell: Cell, runs: int, tick: Tick
) -> list[Timed]:
    """Reading up to the first token of the answer."""
    ids = subject.ids(cell)
    timed = [Timed() for _ in sides]
    # timing a stage costs two looks at the clock on a CPU; a GPU has to be waited for, which has a
    # run of its own
    beside = subject.device.type == "cpu"
    for number in _turns(len(sides), runs):
        tick(f"prefill, {cell.length} tokens: {sides[number].label}")
        timed[number].add(sides[number].read(subject.model, ids, stages=beside))
    if not beside:
        for side, found in zip(sides, timed, strict=True):
            reading = side.read(subject.model, ids, stages=True)
            found.stages = [(reading.stages, reading.seconds)] if reading.stages else []
    return timed


def decode(
    subject: Subject, sides: Sequence[CacheSide], cell: Cell, runs: int, tokens: int, tick: Tick
) -> list[Timed]:
    """Decoding after reading. Each side reads once; every round begins with a copy of what it has
    read.
    """
    ids = subject.ids(cell)
    readings = []
    for side in sides:
        tick(f"reading {cell.length} tokens to decode after: {side.label}")
        readings.append(side.read(subject.model, ids))
    timed = [Timed(numbers=reading.numbers) for reading in readings]
    for number in _turns(len(sides), runs):
        tick(f"decoding after {cell.length} tokens: {sides[number].label}")
        timed[number].seconds.append(sides[number].decode(subject.model, readings[number], tokens))
    return timed


def _turns(sides: int, runs: int) -> list[int]:
    """Whose turn it is: every other round goes the other way round."""
    forward = list(range(sides))
    return [
        number for run in range(runs) for number in (forward if run % 2 == 0 else forward[::-1])
    ]
