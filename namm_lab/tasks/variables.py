"""RULER's variable tracking (arXiv 2404.06654, NVIDIA/RULER): a chain of assignments in noise, and
which variables have its value.

Its template, its noise, one chain of four hops and its in-context example; names and values are of
the split. As in `niah`, the answer prefix is left out.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from namm_lab.tasks.corpus import Corpus
from namm_lab.tasks.material import Material
from namm_lab.tasks.niah import NOISE
from namm_lab.tasks.placement import place
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task
from namm_lab.tasks.words import letters, own

OPENING = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
ASK = "Find all variables that are assigned the value {value} in the text above."
ANSWER = (
    "According to the chain(s) of variable assignment in the text above, {count} variables are "
    "assigned the value {value}, they are: {names}."
)
LETTERS = 5  # of a variable
EXAMPLE = 150  # tokens of the example's text, at most a quarter of the document
TOKENS = 128  # of a reply


@dataclass(frozen=True)
class Variables(Task):
    """One chain of assignments, and one question about all of it."""

    hops: int = 4
    """Variables after the first one."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        example, asked = self._part(rng, material, min(EXAMPLE, length // 4))
        shown = f"{example}\n{asked.prompt} {asked.answer}\n\n"
        text, question = self._part(rng, material, length - material.count(shown))
        return Sample(self.name, shown + text, (question,))

    def _part(self, rng: random.Random, material: Material, length: int) -> tuple[str, Question]:
        value = own(material.split, lambda: str(rng.randrange(10_000, 100_000)))
        names: dict[str, None] = {}
        while len(names) <= self.hops:
            names[own(material.split, lambda: letters(rng, string.ascii_uppercase, LETTERS))] = None
        chain = list(names)
        sources = [value, *(f"VAR {name}" for name in chain)]
        statements = [
            f"VAR {name} = {source}" for name, source in zip(chain, sources, strict=False)
        ]
        room = length - material.count(OPENING)
        text = place(rng, Corpus([NOISE], is_code=False), statements, room, material.count)
        answer = ANSWER.format(count=len(chain), value=value, names=", ".join(chain))
        question = Question(
            ASK.format(value=value),
            answer,
            tuple(chain),
            metric="string_match_all",
            max_tokens=TOKENS,
        )
        return OPENING + text, question
