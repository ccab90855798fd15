"""How a reply is scored: pure functions of the reply, what is expected and, for classifications,
the choices; from 0 to 1.

`f1`, `rouge_l`, `edit`, `count`, `numbered` and `classify` are LongBench's (THUDM/LongBench,
metrics.py), `string_match_all` and `string_match_part` RULER's (NVIDIA/RULER). Two differences:
ROUGE-L is that of the whole text and not of its sentences, and Chinese is compared by characters
and not by words of a segmenter.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from namm_llm import NammError

Metric = Callable[[str, Sequence[str], Sequence[str]], float]
ABSTAINS = (
    "not stated", "not mentioned", "not specified", "not given", "not provided", "not state",
    "not mention", "not specify", "not say", "no information", "unknown", "unanswerable",
)  # fmt: skip
_DIGITS = re.compile(r"\d+")


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and doubled spaces (LongBench, after SQuAD)."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


# -- records ---------------------------------------------------------------------------------------


def exact(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Whether the first line is an expected value, or states it: `The access code of the amber
    vault is 48213.`
    """
    line = first_line(reply)
    stated = re.split(r"\bis\b|: ", line)[-1]
    return float(
        bool({normalise(line), normalise(stated)} & {normalise(value) for value in expected} - {""})
    )


def not_stated(reply: str, expected: Sequence[str] = (), choices: Sequence[str] = ()) -> float:
    """Whether the first line says that the text does not tell."""
    line = normalise(first_line(reply))
    return float(any(phrase in line for phrase in ABSTAINS))


def set_share(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Items found, of all that are expected or stated, in any order: 1 for all of them and no
    other.

    An item is a line, or a part of the only line between commas; that no more is stated is none.
    What is expected may have parts, `amber vault: 48213`, to be found in this order in one item.
    """
    stated = [f" {normalise(item)} " for item in _items(reply)]
    wanted = [[f" {normalise(part)} " for part in item.split(": ")] for item in expected]
    found = sum(any(_holds(item, parts) for item in stated) for parts in wanted)
    others = sum(not any(_holds(item, parts) for parts in wanted) for item in stated)
    return found / max(1, len(wanted) + others)


def word_recall(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Share of the expected answer's words that the reply has."""
    said = set(normalise(reply).split())
    return max(
        (_mean([word in said for word in normalise(answer).split()]) for answer in expected),
        default=0.0,
    )


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _items(reply: str) -> list[str]:
    lines = [
        line
        for line in reply.strip().splitlines()
        if line.strip() and not line.rstrip().endswith(":") and not not_stated(line)
    ]
    return (
        lines
        if len(lines) > 1
        else [part for line in lines for part in re.split(r"[,;]|\band\b", line) if part.strip()]
    )


def _holds(item: str, parts: Sequence[str]) -> bool:
    at = 0
    for part in parts:
        found = item.find(part, at)
        if found < 0:
            return False
        at = found + len(part) - 1  # neighbours share a space
    return True


# -- RULER -----------------------------------------------------------------------------------------


def string_match_all(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Share of the expected strings that the reply contains."""
    return _mean([answer.lower() in reply.lower() for answer in expected])


def string_match_part(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Whether the reply contains one of the expected strings."""
    return float(any(answer.lower() in reply.lower() for answer in expected))


# -- LongBench -------------------------------------------------------------------------------------


def f1(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """F1 of words, against the nearest of the expected answers."""
    return max(
        (_overlap(normalise(reply).split(), normalise(answer).split()) for answer in expected),
        default=0.0,
    )


def f1_characters(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """F1 of characters, for Chinese."""
    return max(
        (_overlap(_characters(reply), _characters(answer)) for answer in expected), default=0.0
    )


def rouge_l(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """F1 of the longest common subsequence of words."""
    return max(
        (_common(reply.lower().split(), answer.lower().split()) for answer in expected), default=0.0
    )


def rouge_l_characters(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """F1 of the longest common subsequence of characters, for Chinese."""
    return max(
        (_common(_characters(reply), _characters(answer)) for answer in expected), default=0.0
    )


def edit(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Similarity of the first line that looks like code."""
    lines = (
        line
        for line in reply.lstrip("\n").split("\n")
        if "`" not in line and "#" not in line and "//" not in line
    )
    line = next(lines, "")
    return max(
        (float(_rapidfuzz().fuzz.ratio(line, answer)) / 100 for answer in expected), default=0.0
    )


def count(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Share of the reply's numbers that are the expected one."""
    return max(
        (_mean([number == answer for number in _DIGITS.findall(reply)]) for answer in expected),
        default=0.0,
    )


def numbered(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """As `count`, where what is expected is written out: `Paragraph 7`."""
    return count(reply, [number for answer in expected for number in _DIGITS.findall(answer)[:1]])


def classify(reply: str, expected: Sequence[str], choices: Sequence[str] = ()) -> float:
    """One over the number of choices that the reply names, if the expected one is among them."""
    best = 0.0
    for answer in expected:
        named = [
            choice
            for choice in choices
            if choice in reply and not (choice in answer and choice != answer)
        ]
        best = max(best, 1 / len(named) if answer in named else 0.0)
    return best


def _overlap(said: Sequence[str], wanted: Sequence[str]) -> float:
    return _f1(sum((Counter(said) & Counter(wanted)).values()), len(said), len(wanted))


def _common(said: Sequence[str], wanted: Sequence[str]) -> float:
    return _f1(int(_rapidfuzz().distance.LCSseq.similarity(said, wanted)), len(said), len(wanted))


def _f1(same: int, said: int, wanted: int) -> float:
    return 2 * same / (said + wanted) if same else 0.0


def _characters(text: str) -> list[str]:
    return [letter for letter in text.lower() if letter.isalnum()]


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def _rapidfuzz() -> Any:
    try:
        import rapidfuzz
        import rapidfuzz.distance
        import rapidfuzz.fuzz
    except ImportError as error:
        raise NammError(
            "ROUGE-L and edit similarity need rapidfuzz: pip install 'namm-llm[lab]'."
        ) from error
    return rapidfuzz


METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (
        exact, not_stated, set_share, word_recall, string_match_all, string_match_part,
        f1, f1_characters, rouge_l, rouge_l_characters, edit, count, numbered, classify,
    )
}  # fmt: skip
