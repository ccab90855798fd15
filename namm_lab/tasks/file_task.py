"""Rows of a benchmark's jsonl file that a user has on disk, and documents cut to a length."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from namm_lab.tasks.corpus import CountTokens
from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Sample
from namm_lab.tasks.task import Task
from namm_llm import DocumentError, UsageError
from namm_llm.documents import read_text

Row = Mapping[str, Any]


@dataclass(frozen=True)
class FileTask(Task):
    """A benchmark's file, whose rows are samples of the split `test`: it must not be learnt from.

    A document that is longer than the length asked for loses its middle, as in LongBench.
    """

    path: Path = Path()

    @abstractmethod
    def sample(self, row: Row) -> Sample:
        """A row, its document uncut. KeyError for a field that it lacks."""

    def draw(self, rng: Random, material: Material, length: int) -> Sample:
        return self._cut(rng.choice(read_rows(self.path)), length, material)

    def draw_many(self, material: Material, length: int, seed: int, count: int) -> list[Sample]:
        """`count` different rows, or all if there are fewer."""
        if material.split != "test":
            raise UsageError(
                f"{self.path} is a benchmark: it can be measured (split test), but not be used "
                f"as {material.split} data."
            )
        rows = list(read_rows(self.path))
        Random(f"{self.name} {seed}").shuffle(rows)
        return [self._cut(row, length, material) for row in rows[:count]]

    def _cut(self, row: Row, length: int, material: Material) -> Sample:
        try:
            sample = self.sample(row)
        except (KeyError, TypeError) as error:
            raise DocumentError(
                f"{self.path}: a row lacks the field {error}; it has {', '.join(row)}."
            ) from error
        return Sample(
            self.name, without_middle(sample.document, length, material.count), sample.questions
        )


def without_middle(text: str, length: int, count: CountTokens) -> str:
    """The beginning and the end of a text, half of the tokens each, or the whole text if it has no
    more than `length`.
    """
    if (tokens := count(text)) <= length:
        return text
    half = len(text) * length // tokens // 2
    while count(cut := text[:half] + text[len(text) - half :]) > length:
        half = half * 99 // 100
    return cut


@cache
def read_rows(path: Path) -> tuple[Row, ...]:
    """The JSON objects of a jsonl file. DocumentError, in one line, for anything else."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DocumentError(
                f"{path} is no jsonl file: line {number} is not JSON ({error})."
            ) from error
        if not isinstance(row, dict):
            raise DocumentError(f"{path}: line {number} is no JSON object.")
        rows.append(row)
    return tuple(rows)
