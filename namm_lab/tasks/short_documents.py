"""Short documents of twelve kinds with four questions each, to choose prompts by.

`short_documents.txt` has two sets of the same kinds: prompts are chosen on one, and what they
are worth is reported on the other. All of it was written for this project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

TEXTS = Path(__file__).with_name("short_documents.txt")
Set = Literal["choosing", "reporting"]
SETS: tuple[Set, ...] = get_args(Set)


@dataclass(frozen=True)
class ShortQuestion:
    """A question whose answer is a few words of the document."""

    text: str
    expression: str
    """What a right answer matches, whatever the case."""

    def is_right(self, answer: str) -> bool:
        """Whether an answer has the words that it must have."""
        return re.search(self.expression, answer, re.IGNORECASE) is not None


@dataclass(frozen=True)
class ShortDocument:
    """A document of some 150 words."""

    kind: str
    """Such as `contract` or `email`."""
    text: str
    questions: tuple[ShortQuestion, ...]

    def invented_numbers(self, answer: str) -> list[str]:
        """Numbers of an answer that the document does not have; those of a numbered list aside."""
        answer = re.sub(r"(?m)^\s*\d+[.)]\s", "", answer)
        numbers = re.findall(r"\d[\d.,:]*\d|\d", answer)
        return [number for number in numbers if number not in self.text]


def short_documents(name: Set) -> list[ShortDocument]:
    """One of the two sets."""
    blocks = TEXTS.read_text(encoding="utf-8").split("=== ")[1:]
    return [_document(block) for block in blocks if block.startswith(f"{name} ")]


def _document(block: str) -> ShortDocument:
    """A heading `SET KIND`, the text, a line `---`, and for each question `? TEXT`, `= REGEX`."""
    heading, _, rest = block.partition("\n")
    text, _, questions = rest.rpartition("\n---\n")
    pairs = re.findall(r"^\? (.*)\n= (.*)$", questions, re.MULTILINE)
    return ShortDocument(heading.split()[1], text, tuple(ShortQuestion(*pair) for pair in pairs))
