"""Passage retrieval: a document of numbered passages, and which of them says something."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from namm_lab.tasks.corpus import Corpus
from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task
from namm_lab.tasks.words import own

TOKENS = 110  # of a passage
QUOTE = (8, 14)  # words of a quotation


@dataclass(frozen=True)
class Passages(Task):
    """`Passage 417: ...`; `Which passage says "..."?`; the quotation stands in one passage only,
    and the numbers in no order.
    """

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        passages: dict[str, str] = {}
        total = 0
        while total < length or len(passages) < 2:
            number, size = _number(rng, material.split), min(TOKENS, max(24, length - total))
            if number in passages:
                continue
            passages[number] = _passage(rng, material.need_prose(), size, material)
            total += material.count(f"Passage {number}: {passages[number]}\n")
        quotable = [
            (number, quote)
            for number, text in passages.items()
            if (quote := _quote(rng, text, list(passages.values())))
        ]
        asked = rng.sample(quotable, min(self.questions, len(quotable)))
        document = "".join(f"Passage {number}: {text}\n" for number, text in passages.items())
        return Sample(
            self.name, document, tuple(_question(number, quote) for number, quote in asked)
        )


def _number(rng: random.Random, split: str) -> str:
    return own(split, lambda: str(rng.randrange(100, 100_000)))


def _passage(rng: random.Random, corpus: Corpus, tokens: int, material: Material) -> str:
    return " ".join("".join(corpus.take(rng, tokens - 8, material.count)).split())


def _quote(rng: random.Random, text: str, texts: list[str]) -> str | None:
    """Some words in a row that no other passage has."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    size = rng.randint(*QUOTE)
    if len(words) < size:
        return None
    first = rng.randrange(len(words) - size + 1)
    quote = text[words[first][0] : words[first + size - 1][1]]
    return quote if sum(quote in other for other in texts) == 1 else None


def _question(number: str, quote: str) -> Question:
    return Question(
        f'Which passage says "{quote}"?',
        f"Passage {number}.",
        (number,),
        metric="count",
        max_tokens=24,
    )
