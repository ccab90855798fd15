"""Summaries of real texts. There is no label; the reference is what PEGASUS (arXiv 1912.08777) was
taught: the sentences that have most in common with all others.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.metrics import normalise
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

ASK = "Summarize the text in three sentences."
SENTENCES, WORDS = 3, (8, 40)
TOKENS = 160  # of a reply


@dataclass(frozen=True)
class Summary(Task):
    """A text that goes on without a break, and one request; the score is ROUGE-L."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        sentences = material.need_prose().take(rng, length, material.count)
        reference = principal_sentences(sentences)
        question = Question(ASK, reference, (reference,), metric="rouge_l", max_tokens=TOKENS)
        return Sample(self.name, "".join(sentences), (question,))


def principal_sentences(sentences: list[str], count: int = SENTENCES) -> str:
    """The sentences with the highest F1 of words with all others together, in their order."""
    words = [Counter(normalise(sentence).split()) for sentence in sentences]
    everything = sum(words, Counter[str]())

    def likeness(number: int) -> float:
        own, size = words[number], words[number].total()
        if not WORDS[0] <= size <= WORDS[1]:
            return 0.0
        common = (own & (everything - own)).total()
        return 2 * common / everything.total() if everything else 0.0

    best = sorted(range(len(sentences)), key=likeness, reverse=True)[:count]
    return " ".join(" ".join(sentences[number].split()) for number in sorted(best))
