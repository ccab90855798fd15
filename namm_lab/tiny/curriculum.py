"""What is trained when: short copying first, then records in ever longer documents."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from namm_lab.tiny.documents import World, copying, enumerating, reading, reciting, remembering
from namm_lab.tiny.example import Example
from namm_lab.tiny.lists import listing

Maker = Callable[[random.Random, World, int], Example]


@dataclass(frozen=True)
class Task:
    """Examples of one kind and length; `batch` of them make a step."""

    name: str
    make: Maker
    length: int
    batch: int
    share: float = 1.0


@dataclass(frozen=True)
class Stage:
    """Tasks mixed until the running accuracy on look-ups passes `until`, or `steps` are over."""

    name: str
    tasks: tuple[Task, ...]
    until: float
    steps: int
    language: bool = False
    """Whether each step also learns plain prose and code."""


def _read(name: str, length: int, batch: int, spacing: int, questions: int, share: float) -> Task:
    return Task(name, partial(_reading, spacing=spacing, questions=questions), length, batch, share)


def _reading(
    rng: random.Random, world: World, length: int, spacing: int, questions: int
) -> Example:
    return reading(rng, world, length, spacing, questions)


def _listing(rng: random.Random, world: World, length: int) -> Example:
    return listing(rng, world, length, spacing=rng.choice((20, 32, 64)))


def _bare_listing(rng: random.Random, world: World, length: int) -> Example:
    """Hardly any text between the records: many of them a step."""
    return listing(rng, world, length, spacing=rng.choice((18, 20, 24)))


def _enumerating(rng: random.Random, world: World, length: int) -> Example:
    return enumerating(rng, world, length, spacing=rng.choice((24, 48, 96)))


def _bare_enumerating(rng: random.Random, world: World, length: int) -> Example:
    """Hardly any text between the entries: many lists a step, for the way from `List all boxes` to
    `Box 1`.
    """
    return enumerating(rng, world, length, spacing=12)


COPY = Task("copy", copying, 96, 48)
RECITE_PLAIN = Task("recite plain", partial(reciting, plain_names=True), 160, 32)
RECITE = Task("recite", partial(reciting, plain_names=False), 224, 24)
READ_SHORT = _read("read 512", 512, 12, 24, 8, 1.0)
REMEMBER = Task("remember", remembering, 512, 8, 0.06)
COPY_FAR = Task("copy 384", copying, 384, 10, 0.12)
LIST_BARE = Task("list 192", _bare_listing, 192, 28, 0.4)
LIST_SHORT = Task("list 512", _listing, 512, 12, 0.04)
MIXTURE = (
    _read("read 1024", 1024, 6, 32, 14, 0.44),
    _read("read 2048", 2048, 3, 48, 20, 0.15),
    _read("read 4096", 4096, 1, 96, 30, 0.05),
    REMEMBER,
    LIST_SHORT,
    Task("list 1024", _listing, 1024, 6, 0.12),
    Task("recite", RECITE.make, 224, 24, 0.06),
)
LONG = (
    _read("read 1024", 1024, 5, 24, 14, 0.24),
    _read("read 2048", 2048, 3, 56, 20, 0.18),
    _read("read 4096", 4096, 1, 96, 32, 0.24),
    _read("read 8192", 8192, 1, 128, 48, 0.12),
    _read("read 16384", 16384, 1, 128, 64, 0.005),
    REMEMBER,
    COPY_FAR,
    LIST_SHORT,
    Task("entries 512", _bare_enumerating, 512, 10, 0.12),
    Task("entries 768", _enumerating, 768, 7, 0.04),
    Task("entries 2048", _enumerating, 2048, 3, 0.06),
)
STAGES = (
    Stage("copy", (COPY,), until=0.85, steps=300),
    Stage("recite plain", (RECITE_PLAIN,), until=0.90, steps=200),
    Stage("recite", (RECITE,), until=0.85, steps=100),
    Stage("read short", (READ_SHORT, LIST_SHORT, REMEMBER), until=0.85, steps=700, language=True),
    Stage("mixture", MIXTURE, until=0.95, steps=350, language=True),
    Stage("long", LONG, until=2.0, steps=10**9, language=True),
)

CONTINUED_STAGES = (
    Stage(
        "lists",
        (
            LIST_BARE,
            Task("list 512", _listing, 512, 8, 0.15),
            _read("read 512", 512, 8, 16, 6, 0.2),
            _read("read 1024", 1024, 4, 24, 12, 0.2),
            REMEMBER,
            COPY_FAR,
        ),
        until=0.93,
        steps=500,
        language=True,
    ),
    Stage("long", LONG, until=2.0, steps=10**9, language=True),
)
"""For a model that looks records up already."""

SMOKE_STAGES = (
    Stage("copy", (Task("copy", copying, 48, 8),), until=0.85, steps=3),
    Stage(
        "read",
        (
            _read("read 256", 256, 2, 24, 4, 1.0),
            Task("list 256", _listing, 256, 2),
            Task("remember", remembering, 256, 2),
        ),
        until=2.0,
        steps=10**9,
        language=True,
    ),
)
"""A few steps of everything."""


def draw_task(rng: random.Random, stage: int, stages: tuple[Stage, ...] = STAGES) -> Task:
    """A task of the stage, or, for a fifth of the steps until documents are read, of a stage before
    it.
    """
    early = stage > 0 and not stages[stage].language
    chosen = stages[rng.randrange(stage)] if early and rng.random() < 0.2 else stages[stage]
    return rng.choices(chosen.tasks, [task.share for task in chosen.tasks])[0]
