"""Text to read: books, the standard library's source and its docstrings, with a held-out part of
each.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from namm_lab.tasks.corpus import code_lines, sentences
from namm_lab.tasks.texts import held_out, library_paths
from namm_lab.tiny.tokenizer import Encoder


@dataclass(frozen=True)
class Text:
    """A book or a module of the standard library."""

    name: str
    content: str
    held_out: bool


def library_sources(limit: int | None = None) -> Iterator[Text]:
    """The standard library's modules, one in twelve held out; without `pydoc_data`, which the demo
    reads.
    """
    for path, name in library_paths()[:limit]:
        yield Text(name, path.read_text(encoding="utf-8", errors="ignore"), held_out(name))


def docstrings(source: Text) -> Text:
    """A module's docstrings as prose, one paragraph a line."""
    try:
        nodes = ast.walk(ast.parse(source.content))
    except SyntaxError:
        return Text(source.name, "", source.held_out)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    paragraphs = (
        re.sub(r"\s+", " ", part).strip() for text in found for part in text.split("\n\n")
    )
    return Text(
        source.name, "\n".join(part for part in paragraphs if len(part) > 40), source.held_out
    )


def books(folder: Path) -> list[Text]:
    """The folder's .txt files; the two smallest are held out (a single file's last tenth is)."""
    paths = sorted(folder.glob("*.txt"), key=lambda path: (path.stat().st_size, path.name))
    if not paths:
        raise SystemExit(f"No .txt file in {folder}.")
    if len(paths) < 3:
        return [part for path in paths for part in _split_tail(path)]
    return [
        Text(path.stem, path.read_text(encoding="utf-8"), i < 2) for i, path in enumerate(paths)
    ]


def _split_tail(path: Path) -> list[Text]:
    content = path.read_text(encoding="utf-8")
    cut = len(content) * 9 // 10
    return [Text(path.stem, content[:cut], False), Text(f"{path.stem} (end)", content[cut:], True)]


class Corpus:
    """Tokens of one kind of text, and where its pieces (sentences, or lines of code) begin."""

    def __init__(self, pieces: list[list[int]], newline: int, comment: str = "") -> None:
        self.ids = np.fromiter((i for piece in pieces for i in piece), dtype=np.int64)
        self.starts = np.cumsum([0] + [len(piece) for piece in pieces])
        self.newline = newline
        self.comment = comment

    def window(self, rng: random.Random, length: int) -> list[int]:
        start = rng.randrange(max(1, len(self.ids) - length))
        return self.ids[start : start + length].tolist()

    def pieces(self, rng: random.Random, length: int) -> list[list[int]]:
        """Whole pieces in a row, the last one cut so that they have exactly `length` tokens
        together.
        """
        last = int(np.searchsorted(self.starts, max(0, len(self.ids) - length), side="right")) - 1
        index, found, left = rng.randrange(max(1, last)), [], length
        while left > 0:
            start, end = self.starts[index], self.starts[index + 1]
            found.append(self.ids[start : min(end, start + left)].tolist())
            left -= len(found[-1])
            index = (index + 1) % (len(self.starts) - 1)
        return found


def prose_corpus(texts: list[Text], encode: Encoder) -> Corpus:
    return Corpus(
        encode.batch([s for text in texts for s in sentences(text.content)]), encode.newline
    )


def code_corpus(texts: list[Text], encode: Encoder) -> Corpus:
    lines = [line for text in texts for line in code_lines(text.content)]
    return Corpus(encode.batch(lines), encode.newline, comment="# ")
