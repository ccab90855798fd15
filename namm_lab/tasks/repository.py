"""Code completion over a repository (as RepoBench, arXiv 2306.03091): the next line, which calls
what was defined long before.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task
from namm_llm import UsageError

ASK = "These are the last lines of the code:\n\n{lines}\n\nWrite the next line of the code."
SHOWN = 8  # lines before the one that is asked for
APART = 20  # lines between a definition and its use, at least
LINE = (16, 90)  # characters of a line that is asked for
TOKENS = 48  # of a reply
_DEFINED = re.compile(r"^\s*(?:def|class) (\w{6,})", re.MULTILINE)


@dataclass(frozen=True)
class Use:
    """A line that uses what its module defines."""

    lines: tuple[str, ...]
    """From the definition up to the line."""

    @property
    def answer(self) -> str:
        return self.lines[-1].strip()


@dataclass(frozen=True)
class Repository(Task):
    """Code of other modules, then of one module from a definition on; the score is the similarity
    of the next line (LongBench's `edit`).
    """

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        code = material.need_code()
        found = uses(code.texts)
        for use in rng.sample(found, len(found)):
            known = "".join(use.lines[:-1])
            left = length - material.count(known)
            if left >= 0:
                break
        else:
            raise UsageError(
                f"no code of the split {material.split} uses within {length} tokens what it "
                "defines: add .py files, or give larger --lengths."
            )
        before = "".join(code.take(rng, left, material.count))
        prompt = ASK.format(lines="".join(use.lines[-1 - SHOWN : -1]).rstrip())
        question = Question(
            prompt, use.answer, (use.answer,), metric="edit", max_tokens=TOKENS, first_line=True
        )
        return Sample(self.name, before + known, (question,))


@lru_cache(maxsize=8)
def uses(texts: Sequence[str]) -> tuple[Use, ...]:
    """Every line of these modules that calls what stands well before it."""
    return tuple(use for text in texts for use in _of_module(text))


def _of_module(text: str) -> Iterator[Use]:
    lines = text.splitlines(keepends=True)
    defined: dict[str, int] = {}
    for number, line in enumerate(lines):
        for called in re.findall(r"\b(\w{6,})\(", line):
            first = defined.get(called, number)
            if number - first >= APART and _is_asked(line):
                yield Use(tuple(lines[first : number + 1]))
                break
        if match := _DEFINED.match(line):
            defined.setdefault(match[1], number)


def _is_asked(line: str) -> bool:
    """Whether the metric sees a line of code in it."""
    code = line.strip()
    return LINE[0] <= len(code) <= LINE[1] and not re.search(r"[`#]|//|^(def|class) ", code)
