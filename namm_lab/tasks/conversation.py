"""Memory of a conversation: what a user said long ago, some of it said anew since (as LongMemEval,
arXiv 2410.10813, asks).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import kinds
from namm_lab.tasks.records import draw_own_value
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

STATED = (
    "User: Before I forget: my {kind} is {value}.\nAssistant: Noted.\n",
    "User: By the way, my {kind} is {value}.\nAssistant: Thank you, I will remember that.\n",
    "User: Please remember that my {kind} is {value}.\nAssistant: I will.\n",
)
CHANGED = "User: It has changed: my {kind} is now {value}.\nAssistant: I have changed it.\n"
REST = ("Read on, please.", "And then?", "Go on.", "What comes next?", "Tell me more.")
ASK = "What is the user's {kind}?"
CHANGES = 0.25  # share of what is said twice
SPACING = 160  # tokens of a conversation for each question, at least
TURN = (40, 120)  # tokens of the assistant's other turns
TOKENS = 24  # of a reply


@dataclass(frozen=True)
class Conversation(Task):
    """`User: ...`, `Assistant: ...`; the assistant reads texts aloud, and the user says things
    between.
    """

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        count = min(self.questions, max(1, length // SPACING))
        newest = dict[str, str]()
        said = list[str]()
        for kind in kinds(rng, material, count):
            newest[kind] = draw_own_value(rng, kind, material.names)
            said.append(rng.choice(STATED).format(kind=kind, value=newest[kind]))
        changed = rng.sample(sorted(newest), round(CHANGES * count))
        for kind in changed:
            newest[kind] = draw_own_value(rng, kind, material.names)
            said.append(CHANGED.format(kind=kind, value=newest[kind]))
        turns = self._turns(rng, material, length - material.count("".join(said)))
        places = sorted(rng.randrange(len(turns) + 1) for _ in said)
        for place, text in reversed(list(zip(places, said, strict=True))):
            turns.insert(place, text)
        questions = tuple(
            Question(
                ASK.format(kind=kind),
                f"The user's {kind} is {value}.",
                (value,),
                metric="string_match_part",
                max_tokens=TOKENS,
            )
            for kind, value in newest.items()
        )
        return Sample(self.name, "".join(turns), questions)

    def _turns(self, rng: random.Random, material: Material, room: int) -> list[str]:
        corpus, turns = material.prose or material.code, list[str]()
        while room > TURN[0] // 2:
            size = min(room - 12, rng.randint(*TURN))
            text = " ".join("".join(corpus.take(rng, max(size, 1), material.count)).split())
            turns.append(f"User: {rng.choice(REST)}\nAssistant: {text}\n")
            room -= material.count(turns[-1])
        return turns
