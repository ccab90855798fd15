"""A needle in a haystack: one odd sentence at a random depth (the format of
gkamradt/LLMTest_NeedleInAHaystack).

Its needle is always the same ("The best thing to do in San Francisco is eat a sandwich and sit in
Dolores Park on a sunny day."); here city, food and park are words of the split, so that nothing can
be learnt by heart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import place
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task


@dataclass(frozen=True)
class Needle(Task):
    """One question; the score is the share of the answer's words."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        first, second, food, park = (material.names.word(rng) for _ in range(4))
        city = f"{first} {second}".title()
        answer = f"eat {food} and sit in {park.capitalize()} Park on a sunny day."
        needle = f"The best thing to do in {city} is {answer}"
        document = place(rng, material.need_prose(), [needle], length, material.count)
        return Sample(
            self.name,
            document,
            (
                Question(
                    f"What is the best thing to do in {city}?",
                    needle,
                    (answer,),
                    metric="word_recall",
                ),
            ),
        )
