"""RULER's aggregation tasks (arXiv 2404.06654, NVIDIA/RULER): common words of a list, and frequent
words of a coded text.

Its templates and counts; words are of the split. As in `niah`, the answer prefix is left out.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task
from namm_lab.tasks.words import invented_word, letters, own

LIST = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
ASK_LIST = "What are the 10 most common words in the above list?"
ANSWER_LIST = "The top 10 words that appear most often in the list are: {words}."
COMMON, LIST_TOKENS = 10, 120
SHORT = 4096  # tokens, below which RULER repeats words less often
CODED = (
    "Read the following coded text and track the frequency of each coded word. Find the three most "
    "frequently appeared coded words. "
)
ASK_CODED = (
    "Do not provide any explanation. Please ignore the dots '....'. What are the three most "
    "frequently appeared words in the above coded text?"
)
ANSWER_CODED = (
    "According to the coded text above, the three most frequently appeared words are: {words}."
)
LETTERS, CODED_TOKENS = 6, 50
TOKENS_OF_A_WORD = 50  # a coded text has a different word for so many tokens
ALPHA, ZETA = 2.0, 1.6449340668  # of Zipf's law, and zeta(2)


@dataclass(frozen=True)
class CommonWords(Task):
    """`cwe`: ten words of a numbered list appear more often than the others; one question."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        short = length < SHORT
        many, few = (6, 1) if short else (30, 3)
        words = _words(rng, material)
        example = _numbered(
            rng, words, COMMON * (1 if short else 3), *((3, 1) if short else (10, 3))
        )
        shown = f"{LIST}{example[0]}\n{ASK_LIST} {_answer(example[1])}\n\n{LIST}"
        seed, drawn = rng.random(), [next(words) for _ in range(COMMON)]

        def text(others: int) -> tuple[str, list[str]]:
            while len(drawn) < COMMON + others:
                drawn.append(next(words))
            given = iter(drawn)
            return _numbered(random.Random(seed), given, others, many, few)

        others = _largest(lambda count: material.count(shown + text(count)[0]) <= length)
        listed, common = text(others)
        question = Question(
            ASK_LIST,
            _answer(common),
            tuple(common),
            metric="string_match_all",
            max_tokens=LIST_TOKENS,
        )
        return Sample(self.name, shown + listed, (question,))


@dataclass(frozen=True)
class FrequentWords(Task):
    """`fwe`: words without meaning, as frequent as Zipf's law has it; dots are the commonest."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        words: dict[str, None] = {}
        while len(words) < max(4, length // TOKENS_OF_A_WORD):
            words[own(material.split, lambda: letters(rng, string.ascii_lowercase, LETTERS))] = None
        coded, seed = ["...", *words], rng.random()

        def text(size: int) -> str:
            counts = [round(size * rank**-ALPHA / ZETA) for rank in range(1, len(coded) + 1)]
            found = [word for word, count in zip(coded, counts, strict=True) for _ in range(count)]
            random.Random(seed).shuffle(found)
            return CODED + " ".join(found)

        size = _largest(lambda count: material.count(text(count)) <= length)
        wanted = coded[1:4]
        question = Question(
            ASK_CODED,
            ANSWER_CODED.format(words=", ".join(wanted)),
            tuple(wanted),
            metric="string_match_all",
            max_tokens=CODED_TOKENS,
        )
        return Sample(self.name, text(size), (question,))


def _words(rng: random.Random, material: Material) -> Iterator[str]:
    """Different words of the split, invented ones when there are no others left."""
    known = rng.sample(material.names.words, len(material.names.words))
    yield from known
    seen = set(known)
    while True:
        if (word := own(material.split, lambda: invented_word(rng))) not in seen:
            seen.add(word)
            yield word


def _numbered(
    rng: random.Random, words: Iterator[str], others: int, many: int, few: int
) -> tuple[str, list[str]]:
    """A list in which ten words come `many` times and `others` words `few` times; these ten."""
    common = [next(words) for _ in range(COMMON)]
    listed = common * many + [next(words) for _ in range(others)] * few
    rng.shuffle(listed)
    return " ".join(f"{number}. {word}" for number, word in enumerate(listed, 1)), common


def _answer(common: list[str]) -> str:
    numbered = " ".join(f"{number}. {word}" for number, word in enumerate(common, 1))
    return ANSWER_LIST.format(words=numbered)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, 0 if none does."""
    high = 16
    while fits(high):
        high *= 2
    low = 0
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
