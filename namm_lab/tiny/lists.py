"""Training examples that ask for all records of a kind."""

from __future__ import annotations

import random

from namm_lab.tasks.records import LISTS, Record, draw_kinds, draw_records
from namm_lab.tiny.documents import RESTATE_LOSS, Dialogue, World, draw_corpus, scatter
from namm_lab.tiny.example import HEAD_LOSS, Example
from namm_lab.tiny.tokenizer import Encoder


def listing(rng: random.Random, world: World, length: int, spacing: int) -> Example:
    """A document with two to eight records of each of a few kinds; all of each kind are asked for,
    in the document's order.
    """
    dialogue, short = Dialogue(world.encode, chat=True), length < 256
    kinds, most = draw_kinds(rng, world.names, rng.randint(1, 2 if short else 3)), 4 if short else 8
    records = [
        r for kind in kinds for r in draw_records(rng, world.names, rng.randint(2, most), [kind])
    ]
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
        listed = [record for record in records if record.kind == kind]
        example.extend(list_answer(world.encode, listed))
    return example


def list_answer(encode: Encoder, records: list[Record]) -> Example:
    """One restated record a line; names and the end are what must be found."""
    answer = Example()
    for i, record in enumerate(records):
        before, _, _ = record.restatement.rpartition(f" {record.name.bare}")
        answer.add(encode(("\n" if i else "") + before), RESTATE_LOSS)
        answer.head(encode(f" {record.name.bare}"))
        answer.add(encode(" is"), 0.1)
        answer.add(encode(f" {record.value}."), RESTATE_LOSS)
    answer.add([encode.end], HEAD_LOSS)
    return answer
