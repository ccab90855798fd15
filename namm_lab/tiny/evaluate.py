"""Scores of an exported model with its full cache, in its chat format, on held-out text with
held-out names.

An answer counts when greedy decoding gives it to the last character. That is so exactly when each
of its tokens, and the end after it, is the likeliest one after those before it, so one pass over
the wanted answer decides it.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass

import torch
from transformers import DynamicCache, LlamaForCausalLM

from namm_lab.tasks import entries
from namm_lab.tasks.entries import Entry, draw_entries
from namm_lab.tasks.records import (
    LISTS,
    QUESTIONS,
    WORD_KINDS,
    Record,
    draw_kinds,
    draw_missing,
    draw_records,
)
from namm_lab.tiny.documents import Dialogue, World, draw_corpus, scatter
from namm_lab.tiny.prose import Corpus

SPACING = 128
"""Document tokens per record."""


@dataclass(frozen=True)
class Score:
    """Right answers to one kind of question at one length."""

    name: str
    length: int
    asked: int
    right: int

    @property
    def exact(self) -> float:
        return self.right / max(1, self.asked)

    def row(self) -> dict[str, float | int | str]:
        return {**asdict(self), "exact": round(self.exact, 4)}


class Reader:
    """Reads a document once, then answers any number of questions about it, each on its own."""

    def __init__(self, model: LlamaForCausalLM, world: World) -> None:
        self.model, self.world = model, world
        self.dialogue = Dialogue(world.encode, chat=True)

    @torch.inference_mode()
    def read(self, document: list[int]) -> None:
        ids = self.dialogue.opening() + document
        self.cache, self.length = DynamicCache(config=self.model.config), len(ids)
        for chunk in torch.tensor([ids]).to(self.model.device).split(2048, dim=1):
            self.model.model(input_ids=chunk, past_key_values=self.cache)

    @torch.inference_mode()
    def says(self, question: str, answer: str) -> bool:
        """Whether greedy decoding answers with exactly this."""
        asked = self.dialogue.question(question, first=True)
        wanted = [*self.world.encode(answer), self.world.encode.end]
        inputs = torch.tensor([[*asked, *wanted[:-1]]]).to(self.model.device)
        states = self.model.model(input_ids=inputs, past_key_values=self.cache).last_hidden_state
        said = self.model.lm_head(states[0, len(asked) - 1 :]).argmax(-1).tolist()
        self._forget()
        return said == wanted

    @torch.inference_mode()
    def ask(self, question: str, limit: int = 320) -> str:
        """A greedy answer."""
        encode, answer = self.world.encode, list[int]()
        ids = self.dialogue.question(question, first=True)
        while len(answer) < limit:
            inputs = torch.tensor([ids]).to(self.model.device)
            hidden = self.model.model(
                input_ids=inputs, past_key_values=self.cache
            ).last_hidden_state
            token = int(self.model.lm_head(hidden[0, -1]).argmax())
            if token == encode.end:
                break
            answer.append(token)
            ids = [token]
        self._forget()
        return encode.core.decode(answer)

    def _forget(self) -> None:
        """Back to the document alone."""
        self.cache.crop(self.length - self.cache.get_seq_length())


class Examiner:
    """Draws documents and questions of one seed and counts right answers."""

    def __init__(self, model: LlamaForCausalLM, world: World, seed: int = 1) -> None:
        self.reader, self.world, self.rng = Reader(model, world), world, random.Random(seed)

    def lookups(self, length: int, questions: int) -> list[Score]:
        """Single facts, each asked in the two main forms, those whose values are words apart; and
        as many that are not there.
        """
        forms = {form: [0, 0] for form in QUESTIONS[:2]}
        words, missing = [0, 0], [0, 0]
        while missing[0] < questions:
            records = self._read(length)
            for record in self.rng.choices(records, k=min(16, questions)):
                for form, counts in forms.items():
                    self._count(
                        words if record.kind in WORD_KINDS else counts, record, record.say(form)
                    )
                absent = draw_missing(self.rng, self.world.names, records)
                self._count(missing, absent, absent.say(self.rng.choice(QUESTIONS[:2])))
        named = {**forms, "values that are words": words, "not stated": missing}
        return [Score(name, length, *counts) for name, counts in named.items()]

    def _read(self, length: int) -> list[Record]:
        rng, world = self.rng, self.world
        kinds = draw_kinds(rng, world.names, rng.randint(1, 6))
        records = draw_records(rng, world.names, length // SPACING, kinds)
        self.reader.read(scatter(rng, world, draw_corpus(rng, world), records, length).ids)
        return records

    def _count(self, counts: list[int], record: Record, question: str) -> None:
        counts[0] += 1
        counts[1] += self.reader.says(question, record.answer)

    def lists(self, length: int, documents: int) -> tuple[Score, Score]:
        """All records of one of three kinds: whole lists, and single records, in any order."""
        tally = _Tally("list", length)
        rng, names = self.rng, self.world.names
        for _ in range(documents):
            kinds = draw_kinds(rng, names, 3)
            records = [
                r for kind in kinds for r in draw_records(rng, names, rng.randint(2, 8), [kind])
            ]
            self._place(records, length)
            for kind in kinds:
                question = Record(kind, records[0].name, "").say(LISTS[0])
                tally.add(
                    self.reader.ask(question),
                    [record.answer for record in records if record.kind == kind],
                )
        return tally.scores()

    def numbered_lists(self, length: int, documents: int) -> tuple[Score, Score]:
        """The same of numbered entries, with a record between them for every 128 tokens."""
        tally = _Tally("numbered list", length)
        rng, names = self.rng, self.world.names
        for _ in range(documents):
            kinds = [draw_entries(rng, names, kind) for kind in rng.sample(entries.ENTRY_KINDS, 3)]
            records = draw_records(rng, names, max(3, length // SPACING), draw_kinds(rng, names, 3))
            self._place([*records, *(entry for kind in kinds for entry in kind)], length)
            for kind in kinds:
                tally.add(
                    self.reader.ask(kind[0].say(entries.LISTS[0])),
                    [entry.answer for entry in entries.listed(kind)],
                )
        return tally.scores()

    def _place(self, stated: list[Record] | list[Record | Entry], length: int) -> None:
        self.rng.shuffle(stated)  # type: ignore[arg-type]
        self.reader.read(
            scatter(self.rng, self.world, draw_corpus(self.rng, self.world), stated, length).ids
        )


class _Tally:
    """Lists that are right as a whole, and lines of them."""

    def __init__(self, name: str, length: int) -> None:
        self.name, self.length = name, length
        self.lists = self.whole = self.lines = self.found = 0

    def add(self, reply: str, wanted: list[str]) -> None:
        said = reply.split("\n")
        self.lists += 1
        self.whole += sorted(said) == sorted(wanted)
        self.lines += len(wanted)
        self.found += len(set(said) & set(wanted))

    def scores(self) -> tuple[Score, Score]:
        return (
            Score(f"{self.name}, whole", self.length, self.lists, self.whole),
            Score(f"{self.name}, single lines", self.length, self.lines, self.found),
        )


@torch.inference_mode()
def nats(
    model: LlamaForCausalLM, world: World, corpus: Corpus, windows: int = 40, length: int = 1024
) -> dict[str, float]:
    """Mean loss on windows spread evenly over the corpus, per token and per byte of text."""
    encode, total, tokens, size = world.encode, 0.0, 0, 0
    step = max(1, (len(corpus.ids) - length) // windows)
    for start in range(0, step * windows, step):
        window = corpus.ids[start : start + length].tolist()
        ids = torch.tensor([[encode.bos, *window]]).to(model.device)
        total += model(input_ids=ids, labels=ids).loss.item() * len(window)
        tokens += len(window)
        size += len(encode.core.decode(window).encode())
    return {
        "nats_per_token": round(total / tokens, 3),
        "nats_per_byte": round(total / size, 3),
        "bits_per_byte": round(total / size / math.log(2), 3),
        "tokens": tokens,
    }
