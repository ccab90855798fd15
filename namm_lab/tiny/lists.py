"""Training examples that ask for all records of a kind."""

from __future__ import annotations

import random

from namm_lab.tasks.records import LISTS, Record, draw_kinds, draw_records
from namm_lab.tiny.documents import Dialogue, World, draw_corpus, scatter
from namm_lab.tiny.example import HEAD_LOSS, NOWHERE, VALUE_LOSS, Example, Pair

NEXT_LOSS, SAME_LOSS = 2.0, 0.2
"""Of the next name, and of what a list says in every line. With equal weights a list repeats the
name before."""


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
    example.tell_before([record.kind for record in records])
    for i, kind in enumerate(rng.sample(kinds, len(kinds))):
        question = Record(kind, records[0].name, "").say(rng.choice(LISTS))
        example.add(dialogue.question(question, first=i == 0))
        found = [
            (record, first)
            for record, (first, _) in zip(records, example.sites, strict=True)
            if record.kind == kind
        ]
        add_answer(example, world, found)
    return example


def add_answer(example: Example, world: World, found: list[tuple[Record, int]]) -> None:
    """One restated record a line. `found`: the records, and where their names stand in the example.

    What depends on the next record asks for it, and is told where it is: the end of the line
    before, which says whether there is one, the article, and the name. Behind the last there is
    nothing to find.
    """
    encode, article = world.encode, world.encode(" the")
    before = (NOWHERE, NOWHERE)
    for line, (record, site) in enumerate(found):
        name = encode(f" {record.name.bare}")
        same = encode(record.restatement)[: -len(name) - 1]
        if line:
            ask(example, before, site)
            example.add(encode("\n"), HEAD_LOSS)
        if same[-1:] == article:
            example.add(same[:-1], SAME_LOSS)
            ask(example, before, site)
            example.add(article, HEAD_LOSS)
        else:
            example.add(same, SAME_LOSS)
        ask(example, before, site)
        before = len(example.ids), len(example.ids) + len(name) - 1
        example.head(name)
        example.weights[-len(name)] = NEXT_LOSS
        example.add(encode(" is"), VALUE_LOSS)
        value = encode(f" {record.value}")
        example.add(value[:1], HEAD_LOSS)
        example.add(value[1:], VALUE_LOSS)
        example.add(encode("."), SAME_LOSS)
    ask(example, before, NOWHERE)
    example.add([encode.end], HEAD_LOSS)


def ask(example: Example, before: Pair, site: int) -> None:
    """The newest token asks for the record behind the one whose name begins and ends at `before`;
    it stands at `site`.
    """
    example.before[len(example.ids) - 1] = before
    example.sources[len(example.ids) - 1] = site
