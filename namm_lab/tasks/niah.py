"""RULER's needle family (arXiv 2404.06654, NVIDIA/RULER): its templates, needles and counts; names
and values are of the split.

RULER asks one question of a document; `needles` is its multikey_1 with eight needles, each asked
for by itself. RULER's haystack of essays is the split's prose. Its answer prefix is left out: the
reply is free, and the metric looks for strings in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.corpus import Corpus
from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import place
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task
from namm_lab.tasks.words import own

NOISE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
)
ONE = (
    "A special magic {kind} is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {kind} afterwards.\n"
)
MANY = (
    "Some special magic {kind}s are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {kind}s afterwards.\n"
)
ASK_ONE = "What is the special magic {kind} for {query} mentioned in the provided text?"
ASK_MANY = "What are all the special magic {kind}s for {query} mentioned in the provided text?"
ANSWER_ONE = "The special magic {kind} for {query} mentioned in the provided text is {values}."
ANSWER_MANY = "The special magic {kind}s for {query} mentioned in the provided text are {values}."
NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
TOKENS = 128  # of a reply


@dataclass(frozen=True)
class Niah(Task):
    """Needles in a haystack."""

    haystack: str = "essay"
    """noise, essay or needle (other needles all through)."""
    key: str = "word"
    """word or uuid."""
    value: str = "number"
    """number or uuid."""
    keys: int = 1
    """Keys that are hidden."""
    values: int = 1
    """Of each key."""
    queries: int = 1
    """Keys asked for at once."""
    apart: bool = False
    """Whether all keys are asked for, each in a question of its own."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        needles = {
            self._key(rng, material): [self._value(rng, material) for _ in range(self.values)]
            for _ in range(self.keys)
        }
        asked = rng.sample(sorted(needles), min(self.queries, len(needles)))
        single = self.values * len(asked) == 1
        statements = [
            self._needle(key, value) for key, values in needles.items() for value in values
        ]
        rng.shuffle(statements)
        opening = (ONE if single else MANY).format(kind=self.value)
        room = length - material.count(opening)
        document = opening + (
            self._among_needles(rng, material, statements, room)
            if self.haystack == "needle"
            else ""
        )
        if self.haystack != "needle":
            document += place(rng, self._corpus(material), statements, room, material.count)
        groups = [[key] for key in needles][: self.questions] if self.apart else [asked]
        return Sample(
            self.name, document, tuple(self._question(group, needles) for group in groups)
        )

    def _question(self, asked: list[str], needles: dict[str, list[str]]) -> Question:
        wanted = [value for key in asked for value in needles[key]]
        query = ", ".join(asked[:-1]) + ", and " + asked[-1] if len(asked) > 1 else asked[0]
        filled = {"kind": self.value, "query": query, "values": ", ".join(wanted)}
        single = len(wanted) == 1
        return Question(
            (ASK_ONE if single else ASK_MANY).format(**filled),
            (ANSWER_ONE if single else ANSWER_MANY).format(**filled),
            tuple(wanted),
            metric="string_match_all",
            max_tokens=TOKENS,
        )

    def _corpus(self, material: Material) -> Corpus:
        return material.need_prose() if self.haystack == "essay" else Corpus([NOISE], is_code=False)

    def _among_needles(
        self, rng: random.Random, material: Material, statements: list[str], room: int
    ) -> str:
        lines, left = list[str](), room - material.count("\n".join(statements))
        while left > 0:
            line = self._needle(self._key(rng, material), self._value(rng, material))
            left -= material.count(line + "\n")
            if left >= 0:
                lines.append(line)
        for statement in statements:
            lines.insert(rng.randrange(len(lines) + 1), statement)
        return "\n".join(lines)

    def _needle(self, key: str, value: str) -> str:
        return NEEDLE.format(kind=self.value, key=key, value=value)

    def _key(self, rng: random.Random, material: Material) -> str:
        words = material.names
        return (
            _uuid(rng, material.split)
            if self.key == "uuid"
            else f"{words.word(rng)}-{words.word(rng)}"
        )

    def _value(self, rng: random.Random, material: Material) -> str:
        if self.value == "uuid":
            return _uuid(rng, material.split)
        return own(material.split, lambda: str(rng.randrange(10**6, 10**7)))


def _uuid(rng: random.Random, split: str) -> str:
    return own(split, lambda: _hexadecimal(rng))


def _hexadecimal(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
