"""Statements placed in a text: documents with records in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from namm_lab.tasks.corpus import Corpus, CountTokens
from namm_lab.tasks.material import Material
from namm_lab.tasks.records import WORD_KINDS, Record, draw_kind, draw_own_value, draw_records

SPACING = 128  # tokens of a document for each record, at most
KINDS = 6  # of records in a document, at most


def place(
    rng: random.Random, corpus: Corpus, statements: Sequence[str], length: int, count: CountTokens
) -> str:
    """`length` tokens of the corpus with the statements in this order at random sentence borders;
    more if they alone are longer.
    """
    own_lines = [f"{corpus.mark}{statement}\n" for statement in statements]
    pieces = corpus.take(rng, length - count("".join(own_lines)), count)
    slots = sorted(rng.randrange(len(pieces) + 1) for _ in statements)
    parts, placed, at_line = list[str](), 0, True
    for number in range(len(pieces) + 1):
        while placed < len(slots) and slots[placed] == number:
            parts.append(own_lines[placed] if at_line else f" {statements[placed]}")
            placed += 1
        if number < len(pieces):
            parts.append(pieces[number])
            at_line = pieces[number].endswith("\n")
    return "".join(parts)


class Stated(Protocol):
    """What a document can state."""

    def statement(self, rng: random.Random) -> str: ...


def place_statements(
    rng: random.Random, material: Material, stated: Sequence[Stated], length: int
) -> str:
    """A document that states all this."""
    return place(
        rng, material.corpus(rng), [one.statement(rng) for one in stated], length, material.count
    )


def records_for(length: int, spacing: int = SPACING) -> int:
    """How many records a document of `length` tokens has at least."""
    return max(3, -(-length // spacing))


def different_records(
    rng: random.Random, material: Material, count: int, of: list[str], look_alikes: float = 0.2
) -> list[Record]:
    """Records of these kinds with names and values of the split; no name has two values of one
    kind.
    """
    found: dict[tuple[str, str], Record] = {}
    while len(found) < count:
        drawn = draw_records(
            rng,
            material.names,
            count - len(found),
            of,
            draw_value=draw_own_value,
            look_alikes=look_alikes,
        )
        for record in drawn:
            found.setdefault((record.kind, record.name.bare.lower()), record)
    return list(found.values())


def kinds(rng: random.Random, material: Material, count: int, *, words: bool = False) -> list[str]:
    """`count` different kinds of records whose values are numbers, or with `words` words."""
    found: dict[str, None] = {}
    if words:
        return rng.sample(WORD_KINDS, min(count, len(WORD_KINDS)))
    while len(found) < count:
        if (kind := draw_kind(rng, material.names)) not in WORD_KINDS:
            found[kind] = None
    return list(found)
