"""RULER's question answering (arXiv 2404.06654, NVIDIA/RULER): documents, some of which hold the
answer.

Its template and its metric. Its data sets (SQuAD, HotpotQA) are not at hand everywhere; here the
documents are docstrings of the split's code, among passages of its prose. RULER asks one question
of a text, this asks several.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.docstrings import Documented, documented
from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task
from namm_llm import UsageError

OPENING = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words.\n\nThe following are given documents.\n\n"
)
ASK = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words.\n\nQuestion: {question}"
)
ONE_HOP = 'Which function or method does this: "{summary}"?'
TWO_HOPS = 'Which class has the method that does this: "{summary}"?'
PASSAGE = (60, 110)  # tokens of a document that holds no answer
SPACING = 128  # tokens of a text for each question, at least
TOKENS = 32  # of a reply


@dataclass(frozen=True)
class Answering(Task):
    """Questions whose answer one document states, or with `two_hops` two of them together."""

    two_hops: bool = False

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        known = [
            one
            for one in documented(material.need_code().texts)
            if len(one.owner) > len("object") or not self.two_hops
        ]
        if not known:
            raise UsageError(
                f"no code of the split {material.split} has docstrings: add .py files."
            )
        spacing = SPACING * (2 if self.two_hops else 1)
        asked = rng.sample(known, min(len(known), self.questions, max(1, length // spacing)))
        texts = [text for one in asked for text in self._documents(one)]
        document = self._joined(rng, material, texts, length)
        return Sample(self.name, document, tuple(map(self._question, asked)))

    def _documents(self, one: Documented) -> list[str]:
        if self.two_hops:
            return [
                f"The method {one.name}: {one.text}",
                f"The class {one.owner} has the method {one.name}.",
            ]
        of = f"method {one.name} of the class {one.owner}" if one.owner else f"function {one.name}"
        return [f"The {of}: {one.text}"]

    def _question(self, one: Documented) -> Question:
        answer = one.owner if self.two_hops else one.name
        asked = (TWO_HOPS if self.two_hops else ONE_HOP).format(summary=one.summary)
        return Question(
            ASK.format(question=asked),
            answer,
            (answer,),
            metric="string_match_part",
            max_tokens=TOKENS,
        )

    def _joined(self, rng: random.Random, material: Material, texts: list[str], length: int) -> str:
        """The documents in any order, numbered, with as many others as there is room for."""
        corpus = material.prose or material.code
        left = length - material.count(OPENING + "".join(map(_numbered, range(len(texts)), texts)))
        while left > PASSAGE[0] // 2:
            size = min(left - 4, rng.randint(*PASSAGE))
            texts.append(" ".join("".join(corpus.take(rng, size, material.count)).split()))
            left -= material.count(_numbered(len(texts), texts[-1]))
        rng.shuffle(texts)
        return OPENING + "".join(map(_numbered, range(1, len(texts) + 1), texts))


def _numbered(number: int, text: str) -> str:
    return f"Document {number}:\n{text}\n\n"
