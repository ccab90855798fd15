"""Numbered entries, `Exhibit 3 is the amber vault.`: all of one kind are asked for, and their
numbers lead from one to the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from namm_lab.tasks.records import MISSING, plural
from namm_lab.tasks.words import Name, Names

ENTRY_KINDS = (
    "exhibit", "rule", "article", "clause", "item", "lot", "prize", "stop", "station", "gate",
    "scene", "lesson", "witness", "prisoner", "guest", "ship", "tool", "sample", "drawer", "box",
    "key", "seat", "plan", "warning",
)  # fmt: skip
LEAST, MOST = 2, 9
FORMS = (
    "{Kind} {number} is {content}.",
    "Note: {kind} {number} is {content}.",
    "Remember that {kind} {number} is {content}.",
)
FORM_WEIGHTS = (14, 2, 2)
QUESTIONS = ("What is {kind} {number}?", "Tell me {kind} {number}.", "{Kind} {number}?")
QUESTION_WEIGHTS = (10, 6, 2)
LISTS = (
    "List all {kinds}.",
    "List all the {kinds}.",
    "What are the {kinds}?",
    "Which {kinds} are stated?",
)


@dataclass(frozen=True)
class Entry:
    """A numbered statement of one kind."""

    kind: str
    number: int
    """From 1."""
    content: Name | None
    """None where the document does not tell."""

    def say(self, template: str) -> str:
        content = MISSING if self.content is None else str(self.content)
        return template.format(
            kind=self.kind,
            Kind=self.kind[0].upper() + self.kind[1:],
            kinds=plural(self.kind),
            number=self.number,
            content=content,
        )

    def statement(self, rng: random.Random) -> str:
        return self.say(rng.choices(FORMS, FORM_WEIGHTS)[0])

    def question(self, rng: random.Random) -> str:
        return self.say(rng.choices(QUESTIONS, QUESTION_WEIGHTS)[0])

    @property
    def answer(self) -> str:
        return self.say(FORMS[0])


def draw_entries(rng: random.Random, names: Names, kind: str) -> list[Entry]:
    """All entries of a kind, by their numbers."""
    contents = names.distinct(rng, rng.randint(LEAST, MOST))
    return [Entry(kind, number, content) for number, content in enumerate(contents, 1)]


def listed(entries: Sequence[Entry]) -> list[Entry]:
    """What a list says: all entries, and that there is no further one."""
    return [*entries, Entry(entries[-1].kind, entries[-1].number + 1, None)]
