"""Where documents come from: Python's documentation and library, which every installation has, or a
folder of the user's texts.

Train, validation and test never share a text. A page or a file is one text; where there is little
of it, long ones are cut into sections.
"""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from pydoc_data.topics import topics

from namm_lab.tasks.words import SPLITS, common_words
from namm_llm import DocumentError, UsageError
from namm_llm.documents import read_text

# the bundled model was not trained on these, see namm_lab/tiny/prose.py
NOT_FOR_TRAINING = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "pydoc_data", "encodings"}
)
PROSE, CODE = (".txt", ".md"), (".py",)
SECTION = (2000, 40_000)  # characters of a section, at least and at most
SECTIONS = 20  # into which all texts of a folder together are cut, at least


@dataclass(frozen=True)
class Texts:
    """Prose and code of one split, in an order that is always the same."""

    prose: tuple[str, ...]
    code: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same texts: 12 hexadecimal digits."""
        digest = hashlib.sha256()
        for text in (*self.prose, "code", *self.code):
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()[:12]


def load_texts(split: str, folder: str | os.PathLike[str] | None = None) -> Texts:
    """The texts of `train`, `validation` or `test`: of a folder, or what Python brings along.
    UsageError or DocumentError.
    """
    if split not in SPLITS:
        raise UsageError(f"the split must be one of {', '.join(SPLITS)}, not {split!r}.")
    return _installed(split) if folder is None else _of_folder(split, Path(folder))


def text_split(text: str) -> str:
    """The split that owns a text: three fifths train, a fifth validation, a fifth test."""
    return {0: "validation", 1: "test"}.get(hashlib.sha256(text.encode()).digest()[0] % 5, "train")


@cache
def vocabulary() -> tuple[str, ...]:
    """Plain words of Python's documentation and of the comments in its library, for names."""
    comments = (
        " ".join(re.findall(r"(?<= )[a-z]+(?= [a-z])", path.read_text("utf-8", "ignore")))
        for path, _ in library_paths()
    )
    words = common_words([*topics.values(), *comments], seen_at_least=4)
    return tuple(word for word in words if len(word) > 3)


# -- what Python brings along ----------------------------------------------------------------------


def library_paths() -> list[tuple[Path, str]]:
    """The standard library's modules, and their names relative to it; without tests and what is no
    library.
    """
    root, found = Path(sysconfig.get_path("stdlib")), []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_FOR_TRAINING]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return [(path, path.relative_to(root).as_posix()) for path in sorted(found)]


def held_out(module: str) -> bool:
    """Whether a module's source was kept out of the bundled model's training: one in twelve."""
    return hashlib.sha256(module.encode()).digest()[0] % 12 == 0


@cache
def _installed(split: str) -> Texts:
    pages = dict.fromkeys(
        _plain(topics[name]) for name in sorted(topics)
    )  # some have several names
    code = [
        path.read_text("utf-8", "ignore")
        for path, name in library_paths()
        if _module_split(name) == split
    ]
    return Texts(
        tuple(page for page in pages if page and text_split(page) == split),
        tuple(text for text in code if text.strip()),
    )


def _module_split(name: str) -> str:
    """Validation and test are modules that the bundled model has not seen either."""
    if not held_out(name):
        return "train"
    return "test" if hashlib.sha256(name.encode()).digest()[1] % 2 else "validation"


def _plain(page: str) -> str:
    """One paragraph a line, short ones (headings, rules) left out."""
    paragraphs = (re.sub(r"\s+", " ", part).strip() for part in page.split("\n\n"))
    return "\n".join(part for part in paragraphs if len(part) > 40)


# -- a folder of the user's ------------------------------------------------------------------------


@cache
def _of_folder(split: str, folder: Path) -> Texts:
    if not folder.is_dir():
        raise DocumentError(f"{folder} is not a folder; name one with .txt, .md or .py files.")
    prose, code = (_files(folder, suffixes) for suffixes in (PROSE, CODE))
    if not prose and not code:
        raise DocumentError(f"{folder} holds no .txt, .md or .py file with text in it.")
    return Texts(
        *(
            tuple(text for text in _sections(texts) if text_split(text) == split)
            for texts in (prose, code)
        )
    )


def folder_texts(folder: str | os.PathLike[str]) -> list[str]:
    """All texts of a folder, whole, for what needs no split. DocumentError if there is none."""
    path = Path(folder)
    if not path.is_dir():
        raise DocumentError(f"{path} is not a folder; name one with .txt, .md or .py files.")
    if not (found := _files(path, (*PROSE, *CODE))):
        raise DocumentError(f"{path} holds no .txt, .md or .py file with text in it.")
    return found


def _files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()
    )
    return [read_text(path) for path in paths if path.stat().st_size]


def _sections(texts: Sequence[str]) -> Iterator[str]:
    """The texts, cut at empty lines (or else at lines) where they are longer than a section."""
    least, most = SECTION
    size = min(most, max(least, sum(map(len, texts)) // SECTIONS))
    for text in texts:
        section = ""
        for part in re.split(r"(?<=\n\n)" if "\n\n" in text else r"(?<=\n)", text):
            section += part
            if len(section) >= size:
                yield section
                section = ""
        if section.strip():
            yield section
