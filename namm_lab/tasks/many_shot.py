"""Many-shot classification (arXiv 2404.11018): what the classes mean is learnt from the examples
alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import kinds
from namm_lab.tasks.records import Record, draw_own_value
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

CLASSES = 4
OPENING = "Each request belongs to a class.\n\n"
SHOT = "Request: {request}\nClass: {label}\n\n"
ASK = "Request: {request}\nWhich class does this request belong to?"
TOKENS = 12  # of a reply


@dataclass(frozen=True)
class ManyShot(Task):
    """Requests about four kinds of records, in any words and about any name; each kind is a class
    with a name that says nothing.
    """

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        labels = dict[str, None]()
        while len(labels) < CLASSES:
            labels[rng.choice(material.names.words)] = None
        classes = dict(zip(kinds(rng, material, CLASSES), labels, strict=True))
        shots, left = [OPENING], length - material.count(OPENING)
        while left > 0:
            kind = rng.choice(sorted(classes))
            shots.append(SHOT.format(request=_request(rng, material, kind), label=classes[kind]))
            left -= material.count(shots[-1])
        asked = [kind for kind in classes if any(f" {classes[kind]}\n" in shot for shot in shots)]
        questions = [
            Question(
                ASK.format(request=_request(rng, material, kind)),
                classes[kind],
                (classes[kind],),
                metric="classify",
                max_tokens=TOKENS,
                choices=tuple(labels),
            )
            for kind in (rng.choice(asked) for _ in range(self.questions))
        ]
        return Sample(self.name, "".join(shots), tuple(questions))


def _request(rng: random.Random, material: Material, kind: str) -> str:
    value = draw_own_value(rng, kind, material.names)
    return Record(kind, material.names.name(rng), value).question(rng)
