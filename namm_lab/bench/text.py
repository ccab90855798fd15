"""Texts to read: what Python brings along, or the user's files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from pydoc_data.topics import topics

from namm_lab.tasks.texts import library_paths
from namm_llm.documents import read_text

INSTALLED = ("documentation", "code")


@lru_cache(maxsize=4)
def text_named(name: str) -> str:
    """`documentation` or `code` of Python's own, or the text of a file.

    Raises DocumentError for a file that is no text.
    """
    if name == "documentation":
        return "\n\n".join(topics[topic] for topic in sorted(topics))
    if name == "code":
        return "\n".join(path.read_text("utf-8", "ignore") for path, _ in library_paths())
    return read_text(name)


def is_code(name: str) -> bool:
    """Whether a needle in it is a comment on a line of its own."""
    return name == "code" or name.endswith(".py")


def title_of(name: str) -> str:
    """How rows call the text: a file by its name without folder and suffix."""
    return name if name in INSTALLED else Path(name).stem
