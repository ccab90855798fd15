"""What Python code says of itself: functions and methods with their docstrings."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

LEAST = 6  # letters of a name that is asked for, so that no reply has it by chance
WORDS = (5, 60)  # of a docstring


@dataclass(frozen=True)
class Documented:
    """A function or a method with a docstring."""

    name: str
    owner: str
    """Its class, or ""."""
    text: str
    """The docstring's first paragraph, in one line."""

    @property
    def summary(self) -> str:
        """The first sentence."""
        return re.split(r"(?<=[.!?])\s", self.text)[0]


@lru_cache(maxsize=8)
def documented(texts: Sequence[str]) -> tuple[Documented, ...]:
    """What is documented in these modules: names of which there is one, and sentences that do not
    say them.
    """
    found = [one for text in texts for one in _of_module(text)]
    names = Counter(one.name for one in found)
    summaries = Counter(one.summary for one in found)
    return tuple(
        one
        for one in found
        if names[one.name] == 1
        and summaries[one.summary] == 1
        and one.name.lower() not in one.summary.lower()
        and (not one.owner or one.owner.lower() not in one.text.lower())
    )


def _of_module(text: str) -> Iterator[Documented]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escapes of old code
            module = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in module.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = node.name if isinstance(node, ast.ClassDef) else ""
        for part in inside:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                words = (ast.get_docstring(part) or "").partition("\n\n")[0].split()
                if WORDS[0] <= len(words) <= WORDS[1] and len(part.name) >= LEAST:
                    yield Documented(part.name, owner, " ".join(words))
