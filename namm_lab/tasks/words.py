"""Names for records: words of a vocabulary, split by hash, so that a name of one split is new to
whoever learnt on another.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr pl sh st th tr".split()
_VOWELS = "a e i o u ai ea oo".split()
_CODAS = ["", "", "l", "m", "n", "r", "s", "t", "ck", "nd", "rn"]


def split_of(word: str) -> str:
    """The split that owns a word: 90 % train, 5 % validation, 5 % test; the same everywhere."""
    bucket = hashlib.sha256(word.lower().encode()).digest()[0] % 20
    return {0: "validation", 1: "test"}.get(bucket, "train")


def letters(rng: random.Random, alphabet: str, count: int) -> str:
    """So many of an alphabet in a row."""
    return "".join(rng.choices(alphabet, k=count))


def own(split: str, draw: Callable[[], str]) -> str:
    """The first one drawn that the split owns."""
    while split_of(word := draw()) != split:
        pass
    return word


def common_words(texts: Iterable[str], seen_at_least: int = 12) -> list[str]:
    """Lowercase words of three to ten letters, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"\b[a-z]{3,10}\b", text))
    return sorted(word for word, count in counts.items() if count >= seen_at_least)


def invented_word(rng: random.Random) -> str:
    """A word that no text has, such as `brenola`: names must work whatever their tokens are."""
    parts = (_ONSETS, _VOWELS, _CODAS) * rng.randint(2, 3)
    return "".join(rng.choice(part) for part in parts)


@dataclass(frozen=True)
class Name:
    """One to three words: `the amber vault`, or `Amber Vault`, which takes no article."""

    words: tuple[str, ...]
    capitalised: bool

    @property
    def bare(self) -> str:
        return " ".join(word.capitalize() if self.capitalised else word for word in self.words)

    def __str__(self) -> str:
        return self.bare if self.capitalised else f"the {self.bare}"


class Names:
    """Draws names of one split."""

    def __init__(self, vocabulary: Iterable[str], split: str) -> None:
        self.split = split
        self.words = [word for word in vocabulary if split_of(word) == split]

    def word(self, rng: random.Random) -> str:
        if rng.random() < 0.97:
            return rng.choice(self.words)
        while split_of(word := invented_word(rng)) != self.split:
            pass
        return word

    def name(self, rng: random.Random) -> Name:
        size = rng.choices((1, 2, 3), (1, 8, 1))[0]
        return Name(tuple(self.word(rng) for _ in range(size)), rng.random() < 0.15)

    def look_alike(self, rng: random.Random, name: Name) -> Name:
        """A name that shares all words but one with `name`."""
        words = list(name.words)
        if len(words) == 1:
            words.insert(rng.randrange(2), self.word(rng))
        else:
            words[rng.randrange(len(words))] = self.word(rng)
        return Name(tuple(words), name.capitalised)

    def distinct(self, rng: random.Random, count: int, look_alikes: float = 0.2) -> list[Name]:
        """`count` different names, a share of which look like an earlier one."""
        names: dict[str, Name] = {}
        while len(names) < count:
            alike = names and rng.random() < look_alikes
            name = (
                self.look_alike(rng, rng.choice(list(names.values()))) if alike else self.name(rng)
            )
            names.setdefault(name.bare.lower(), name)
        return list(names.values())
