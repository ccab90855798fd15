"""Training examples that ask for all records of a kind."""

from __future__ import annotations

import random

from namm_llm.tasks.records import LISTS, Record, draw_kinds, draw_records
from recipes.namm_tiny.documents import Dialogue, World, draw_corpus, scatter
from recipes.namm_tiny.example import HEAD_LOSS, VALUE_LOSS, Example

NEXT_LOSS, SAME_LOSS = 2.0, 0.2
"""Of the next name, and of what a list says in every line: with equal weights it goes on repeating the name before.
Training learns how the lines of a list look; which is next, the circuits know (`list_circuits.py`)."""


def listing(rng: random.Random, world: World, length: int, spacing: int) -> Example:
    """A document with two to eight records of each of a few kinds; all of each kind are asked for, in the document's order."""
    dialogue, short = Dialogue(world.encode, chat=True), length < 256
    kinds, most = draw_kinds(rng, world.names, rng.randint(1, 2 if short else 3)), 4 if short else 8
    records = [r for kind in kinds for r in draw_records(rng, world.names, rng.randint(2, most), [kind])]
    rng.shuffle(records)
    answers_length = len(records) * 18 + 30 * len(kinds)
    space = max(len(records) * spacing, length - answers_length)
    example = Example()
    example.add(dialogue.opening())
    example.extend(scatter(rng, world, draw_corpus(rng, world), records, space))
    example.cut()
    for i, kind in enumerate(rng.sample(kinds, len(kinds))):
        question = Record(kind, records[0].name, "").say(rng.choice(LISTS))
        example.add(dialogue.question(question, first=i == 0))
        add_answer(example, world, [record for record in records if record.kind == kind])
    return example


def add_answer(example: Example, world: World, found: list[Record]) -> None:
    """One restated record a line."""
    encode, article = world.encode, world.encode(" the")
    for line, record in enumerate(found):
        name = encode(f" {record.name.bare}")
        same = encode(record.restatement)[: -len(name) - 1]
        if line:
            example.add(encode("\n"), HEAD_LOSS)
        if same[-1:] == article:
            example.add(same[:-1], SAME_LOSS)
            example.add(article, HEAD_LOSS)
        else:
            example.add(same, SAME_LOSS)
        example.head(name)
        example.weights[-len(name)] = NEXT_LOSS
        example.add(encode(" is"), VALUE_LOSS)
        value = encode(f" {record.value}")
        example.add(value[:1], HEAD_LOSS)
        example.add(value[1:], VALUE_LOSS)
        example.add(encode("."), SAME_LOSS)
    example.add([encode.end], HEAD_LOSS)
