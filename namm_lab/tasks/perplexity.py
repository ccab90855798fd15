"""Long text that goes on: how likely the model finds its end after its beginning went through the
evicting cache.

The score is one over the perplexity, so that its share of the full cache's is the share of
perplexity that is not lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.corpus import shortened
from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

SCORED = 256  # tokens at the end that are scored, at most a quarter of all


@dataclass(frozen=True)
class Perplexity(Task):
    """Text that goes on; document and continuation have `length` tokens together."""

    code: bool = False
    """Whether it is code, not prose."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        corpus = material.need_code() if self.code else material.need_prose()
        text = "".join(corpus.take(rng, length, material.count, repeat=False))
        before = shortened(text, length - min(SCORED, length // 4), material.count)
        return Sample(
            self.name, before, (Question("", text[len(before) :], (), metric="likelihood"),)
        )
