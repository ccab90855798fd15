"""What a task is: a way to draw documents with questions, of any length, from the material of one
split.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Sample
from namm_llm import UsageError

QUESTIONS = 8  # about one document


@dataclass(frozen=True)
class Task(ABC):
    """A way to draw documents with questions. Raises UsageError for no questions."""

    name: str
    """Its key in `TASKS`."""
    questions: int = QUESTIONS
    """Asked about one document, where a task can ask several."""

    def __post_init__(self) -> None:
        if self.questions < 1:
            raise UsageError(f"a document must be asked at least 1 question, not {self.questions}.")

    @abstractmethod
    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        """A sample whose document has about `length` tokens."""

    def draw_many(self, material: Material, length: int, seed: int, count: int) -> list[Sample]:
        """The first `count` samples of a seed; each has a generator of its own, so more of them
        begin with the same ones.
        """
        return [
            self.draw(
                random.Random(f"{self.name} {material.split} {length} {seed} {number}"),
                material,
                length,
            )
            for number in range(count)
        ]
