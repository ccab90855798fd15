"""Single facts: `What is the access code of the amber vault?`, asked of a document that states
many.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import (
    KINDS,
    SPACING,
    different_records,
    kinds,
    place_statements,
    records_for,
)
from namm_lab.tasks.records import MISSING, Record, draw_missing
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task


@dataclass(frozen=True)
class Facts(Task):
    """Many records in a document, some of them asked for."""

    spacing: int = SPACING
    """Tokens for each record."""
    look_alikes: float = 0.2
    """Share of the names that differ from another in one word."""
    missing: float = 0.0
    """Share of the questions whose record the document does not state."""
    words: bool = False
    """Whether the values are words, not numbers."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        count = max(records_for(length, self.spacing), self.questions)
        of = kinds(rng, material, rng.randint(1, KINDS), words=self.words)
        records = different_records(rng, material, count, of, self.look_alikes)
        document = place_statements(rng, material, records, length)
        return Sample(self.name, document, tuple(self._ask(rng, material, records)))

    def _ask(
        self, rng: random.Random, material: Material, records: Sequence[Record]
    ) -> list[Question]:
        absent = round(self.missing * self.questions)
        asked = [about(rng, record) for record in rng.sample(records, self.questions - absent)]
        asked += [
            about_missing(rng, draw_missing(rng, material.names, list(records)))
            for _ in range(absent)
        ]
        rng.shuffle(asked)
        return asked


def about(rng: random.Random, record: Record) -> Question:
    """What a document states."""
    return Question(record.question(rng), record.answer, (record.value,))


def about_missing(rng: random.Random, record: Record) -> Question:
    """What it does not."""
    return Question(record.question(rng), record.answer, (MISSING,), metric="not_stated")
