"""Training and test examples: a document with records in it, then questions and answers, as token
ids.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from namm_lab.tasks import entries
from namm_lab.tasks.entries import ENTRY_KINDS, Entry, draw_entries, listed
from namm_lab.tasks.records import MISSING, Record, draw_kinds, draw_missing, draw_records
from namm_lab.tasks.words import Name, Names
from namm_lab.tiny.example import HEAD_LOSS, Example
from namm_lab.tiny.prose import Corpus
from namm_lab.tiny.tokenizer import Encoder

RESTATE_LOSS = 0.5
KIND_LOSS = 3.0
"""Of a list's first word: `Boxes` becomes `Box` once in a list, and all its lines follow."""
SYSTEM_MESSAGES = (
    "You answer questions about the text.",
    "Answer from the text only.",
    "You are a helpful assistant.",
    "You are a careful reader. Say so when something is not stated.",
)


@dataclass(frozen=True)
class World:
    """What examples are made of."""

    encode: Encoder
    names: Names
    prose: Corpus
    code: Corpus


@dataclass(frozen=True)
class Dialogue:
    """How a document and its questions are framed: a chat, or plain text."""

    encode: Encoder
    chat: bool
    system: str | None = None

    def opening(self) -> list[int]:
        if not self.chat:
            return [self.encode.bos]
        before = f"<|system|>\n{self.system}<|end|>\n" if self.system else ""
        return [self.encode.bos, *self.encode(f"{before}<|user|>\n")]

    def question(self, text: str, first: bool) -> list[int]:
        """From the end of the document (or of the answer before) to where the answer begins."""
        if not self.chat:
            lead = "\n" if first else ""
            return self.encode(f"{lead}Question: {text}\nAnswer:")
        lead = "\n\n" if first else "\n<|user|>\n"
        return self.encode(f"{lead}{text}<|end|>\n<|assistant|>\n")

    def answer(self, record: Record) -> Example:
        """`The access code of the amber vault is 48213.`, without what follows the answer."""
        answer = Example()
        answer.add(self.encode(f"{'' if self.chat else ' '}{record.restatement}"), RESTATE_LOSS)
        answer.head(self.encode(f" {record.value}"))
        answer.add(self.encode("."), RESTATE_LOSS)
        return answer

    def closing(self) -> list[int]:
        return [self.encode.end] if self.chat else [self.encode.newline]


def draw_dialogue(rng: random.Random, encode: Encoder) -> Dialogue:
    system = rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.15 else None
    return Dialogue(encode, chat=rng.random() < 0.85, system=system)


def scatter(
    rng: random.Random, world: World, corpus: Corpus, records: Sequence[Record | Entry], length: int
) -> Example:
    """`length` tokens of the corpus with the records at random sentence borders, in order; more
    where the records alone are longer.
    """
    statements = [record.statement(rng) for record in records]
    inline = world.encode.batch([f" {text}" for text in statements])
    lines = world.encode.batch([f"{corpus.comment}{text}\n" for text in statements])
    least = sum(max(len(line), len(sentence)) for line, sentence in zip(lines, inline, strict=True))
    length = max(length, least)
    pieces = corpus.pieces(rng, length - least)
    slots = sorted(rng.randrange(len(pieces) + 1) for _ in records)
    document, at_line = Example(), True
    for i in range(len(pieces) + 1):
        while slots and slots[0] == i:
            slots.pop(0)
            document.cut()
            own_line, sentence = lines.pop(0), inline.pop(0)
            document.add(own_line if at_line else sentence)
        if i < len(pieces):
            document.add(pieces[i])
            at_line = pieces[i][-1] == corpus.newline
    document.ids, document.weights = document.ids[:length], document.weights[:length]
    document.cuts = [cut for cut in document.cuts if 0 < cut < length]
    return document


def draw_corpus(rng: random.Random, world: World) -> Corpus:
    return world.code if rng.random() < 0.15 else world.prose


def draw_asked(rng: random.Random, world: World, records: list[Record]) -> Record:
    """One of the records, with replacement (each once would teach elimination), or one that is not
    there.
    """
    return draw_missing(rng, world.names, records) if rng.random() < 0.15 else rng.choice(records)


def reading(rng: random.Random, world: World, length: int, spacing: int, questions: int) -> Example:
    """A document with a record every `spacing` tokens, and questions; about `length` tokens."""
    dialogue = draw_dialogue(rng, world.encode)
    space = max(64, length - questions * 36)
    count = max(3, space // spacing)
    records = draw_records(rng, world.names, count, draw_kinds(rng, world.names, rng.randint(1, 6)))
    example = Example()
    example.add(dialogue.opening())
    example.extend(scatter(rng, world, draw_corpus(rng, world), records, space))
    example.cut()
    for i in range(questions):
        record = draw_asked(rng, world, records)
        example.add(dialogue.question(record.question(rng), first=i == 0))
        example.extend(dialogue.answer(record))
        example.add(dialogue.closing(), RESTATE_LOSS)
    return example


def enumerating(rng: random.Random, world: World, length: int, spacing: int) -> Example:
    """A document with numbered entries of a few kinds among other records; each kind is listed, and
    single ones are asked for.
    """
    encode, dialogue = world.encode, Dialogue(world.encode, chat=rng.random() < 0.85)
    kinds = {
        kind: draw_entries(rng, world.names, kind)
        for kind in rng.sample(ENTRY_KINDS, rng.randint(1, 3))
    }
    stated = [entry for of in kinds.values() for entry in of]
    singles = rng.sample(stated, 2) + [rng.choice(listed(of)) for of in kinds.values()]
    answers_length = 16 * (len(stated) + len(kinds)) + 26 * (len(singles) + len(kinds))
    space = max(spacing * len(stated), length - answers_length)
    more = max(2, space // spacing - len(stated))
    records = draw_records(rng, world.names, more, draw_kinds(rng, world.names, rng.randint(1, 3)))
    placed: list[Record | Entry] = [*stated, *records]
    rng.shuffle(placed)
    example = Example()
    example.add(dialogue.opening())
    example.extend(scatter(rng, world, draw_corpus(rng, world), placed, space))
    example.cut()
    asked = [(entry.question(rng), [entry]) for entry in singles]
    asked += [(of[0].say(rng.choice(entries.LISTS)), listed(of)) for of in kinds.values()]
    rng.shuffle(asked)
    for i, (question, told) in enumerate(asked):
        example.add(dialogue.question(question, first=i == 0))
        for line, entry in enumerate(told):
            lead = "\n" if line else "" if dialogue.chat else " "
            example.add(encode(f"{lead}{entry.say('{Kind}')}"), RESTATE_LOSS if line else KIND_LOSS)
            example.add(encode(entry.say(" {number} is")), RESTATE_LOSS)
            example.extend(_content(encode, entry))
            example.add(encode("."), RESTATE_LOSS)
        example.add(dialogue.closing(), HEAD_LOSS)
    return example


def _content(encode: Encoder, entry: Entry) -> Example:
    """`the amber vault` or `not stated`: whether there is one, and its first word, are what must be
    found.
    """
    content, name = Example(), entry.content
    if name is None:
        content.head(encode(f" {MISSING}"))
        return content
    if not name.capitalised:
        content.add(encode(" the"), HEAD_LOSS)
    content.head(encode(f" {name.bare}"))
    return content


def remembering(rng: random.Random, world: World, length: int) -> Example:
    """A chat without a document: facts told in some turns and asked for in later ones."""
    encode, dialogue = world.encode, draw_dialogue(rng, world.encode)
    dialogue = Dialogue(encode, chat=True, system=dialogue.system)
    told: list[Record] = []
    untold = draw_records(rng, world.names, 12, draw_kinds(rng, world.names, 4))
    example = Example()
    example.add(dialogue.opening())
    if rng.random() < 0.3:
        example.add(encode(f"{rng.choice(('Hello!', 'Hi', 'Hello'))}<|end|>\n<|assistant|>\n"))
        example.add(encode("Hello. Give me a text, then ask what it states.<|end|>"), RESTATE_LOSS)
        example.add(encode("\n<|user|>\n"))
    while len(example.ids) < length - 48:
        if untold and (not told or rng.random() < 0.4):
            told.append(untold.pop())
            example.add(encode(f"{told[-1].statement(rng)}<|end|>\n<|assistant|>\n"))
            example.add(encode("Noted.<|end|>"), RESTATE_LOSS)
        else:
            asked = draw_asked(rng, world, told)
            example.add(encode(f"{asked.question(rng)}<|end|>\n<|assistant|>\n"))
            example.extend(dialogue.answer(asked))
            example.add(dialogue.closing(), RESTATE_LOSS)
        example.add(encode("\n<|user|>\n"))
    return example


def copying(rng: random.Random, world: World, length: int) -> Example:
    """Random tokens, then pieces of them again: the first thing to learn. Pieces begin anywhere, so
    that distance does not help; sometimes the tokens are of a few kinds only, so that one token
    does not tell how to go on, but the two or three before it do.
    """
    vocabulary = range(16, world.encode.core.get_vocab_size())
    alphabet = rng.sample(vocabulary, rng.choice((8, 24, len(vocabulary))))
    source = rng.choices(alphabet, k=length // 2)
    example = Example()
    example.add([world.encode.bos, *source])
    example.cut()
    while len(example.ids) < length - 12:
        start = rng.randrange(len(source) - 12)
        example.add(source[start : start + 3])
        for token in source[start + 3 : start + 12]:
            example.head([token])
    return example


def reciting(rng: random.Random, world: World, length: int, plain_names: bool) -> Example:
    """Statements without prose, then some of them restated in random order."""
    encode = world.encode
    records = draw_records(rng, world.names, length // 28, draw_kinds(rng, world.names, 3))
    if plain_names:
        words = [
            word for word in rng.sample(world.names.words, 160) if len(encode(f" {word}")) == 1
        ]
        pairs = zip(records, words, strict=False)
        records = [Record(r.kind, Name((word,), False), r.value) for r, word in pairs] or records
    example = Example()
    example.add([encode.bos])
    example.add(encode(" ".join(r.answer if plain_names else r.statement(rng) for r in records)))
    while len(example.ids) < length - 24:
        record = rng.choice(records)
        example.add(encode(f" {record.restatement}"))
        example.head(encode(f" {record.value}"))
        example.add(encode("."), RESTATE_LOSS)
    return example
