"""Needles and facts in one text, each of them asked for: a few statements at random depths of a
text of any length.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.niah import ASK_ONE, NEEDLE
from namm_lab.tasks.placement import place
from namm_lab.tasks.records import NUMBER_KINDS, Record, draw_own_value
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

_TOKENS = 32  # of a reply


@dataclass(frozen=True)
class Hidden(Task):
    """Half of the questions ask for RULER's needles, the others for facts of as many kinds (at most
    30); nothing else is hidden. A reply counts if it holds the number.
    """

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        needles = -(-self.questions // 2)
        kinds = rng.sample(NUMBER_KINDS, self.questions - needles)
        names = material.names.distinct(rng, self.questions, 0)
        asked = list[Question]()
        for name, kind in zip(names, ["number"] * needles + kinds, strict=True):
            record = Record(kind, name, draw_own_value(rng, kind, material.names))
            filled = {"kind": kind, "key": name.bare, "query": name.bare, "value": record.value}
            needle = kind == "number"
            says = (
                NEEDLE.format(**filled)
                if needle
                else record.say("The {kind} of {name} is {value}.")
            )
            asks = (
                ASK_ONE.format(**filled) if needle else record.say("What is the {kind} of {name}?")
            )
            asked.append(Question(asks, says, (record.value,), "string_match_all", _TOKENS))
        rng.shuffle(asked)
        statements = [each.answer for each in asked]
        document = place(rng, material.need_prose(), statements, length, material.count)
        return Sample(self.name, document, tuple(asked))


def is_needle(question: Question) -> bool:
    """Whether a question of `Hidden` asks for a needle."""
    return "special magic" in question.prompt


def depth_of(sample: Sample, question: Question) -> float:
    """Where the answer is stated: 0 at the beginning of the document, 1 at its end."""
    return sample.document.find(question.answer) / len(sample.document)
