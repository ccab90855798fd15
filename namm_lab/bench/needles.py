"""Needles beside the speed: which numbers, stated once in a text, a contender still answers.

The templates are RULER's (arXiv 2404.06654); the question stands behind the text, in the chat
format of the model, and every contender gets the same ids.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from namm_lab.bench.contenders import Contender, Numbers
from namm_lab.bench.model import BenchModel
from namm_lab.bench.plan import Cell
from namm_lab.bench.text import is_code, text_named
from namm_lab.tasks.corpus import Corpus
from namm_lab.tasks.niah import ASK_ONE, NEEDLE
from namm_lab.tasks.placement import place
from namm_lab.tasks.texts import vocabulary
from namm_lab.tasks.words import Names
from namm_llm.models.prompt import PromptFormat

ANSWER = 24
"""Tokens of an answer."""


@dataclass(frozen=True)
class Asked:
    """A prompt with a number hidden in it."""

    ids: list[int]
    number: str


def draw_needles(model: BenchModel, cell: Cell, count: int) -> list[Asked]:
    """`count` prompts of about `cell.length` tokens out of the cell's text, the same each time."""
    assert cell.text is not None
    loaded = model.loaded
    format = PromptFormat(loaded.tokenizer, loaded.backend, loaded.model_id)
    corpus = Corpus([text_named(cell.text)], is_code=is_code(cell.text))
    names = Names(vocabulary(), "test")
    found = []
    for number in range(count):
        rng = random.Random(f"{cell.length} {number}")
        key, value = f"{names.word(rng)}-{names.word(rng)}", str(rng.randrange(10**6, 10**7))
        question = ASK_ONE.format(kind="number", query=key)
        needle = NEEDLE.format(kind="number", key=key, value=value)
        room = cell.length - len(_prompt(format, question)) - ANSWER
        document = place(rng, corpus, [needle], room, lambda text: len(format.encode(text)))
        found.append(Asked(_prompt(format, f"{document}\n\n{question}"), value))
    return found


def answered(
    model: BenchModel, contender: Contender, needles: list[Asked]
) -> tuple[list[bool], Numbers]:
    """Which of them the contender answers, and the numbers of the cache of the last one."""
    found, numbers = [], Numbers()
    for asked in needles:
        ids = torch.tensor([asked.ids], device=model.device)
        answer, reading = contender.answer(model.model, ids, ANSWER)
        found.append(asked.number in model.loaded.backend.decode(answer))
        numbers = {**reading.numbers, "seconds": reading.seconds}
    return found, numbers


def _prompt(format: PromptFormat, text: str) -> list[int]:
    if not format.template.is_there:
        return format.prompt(f"{text}\n")
    return format.prompt([{"role": "user", "content": text}])
