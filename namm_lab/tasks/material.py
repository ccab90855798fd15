"""What the samples of one split are made of: names, prose, code, and how tokens are counted."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import lru_cache

from namm_lab.tasks.corpus import Corpus, CountTokens
from namm_lab.tasks.texts import load_texts, vocabulary
from namm_lab.tasks.words import Names
from namm_llm import UsageError

CODE_SHARE = 0.15  # of documents with records, as in the bundled model's training


@dataclass(frozen=True)
class Material:
    """Names, prose and code of one split."""

    names: Names
    prose: Corpus
    code: Corpus
    count: CountTokens
    """Tokens of a text."""
    fingerprint: str
    """Of the texts."""

    @property
    def split(self) -> str:
        return self.names.split

    def corpus(self, rng: random.Random) -> Corpus:
        """Mostly prose, sometimes code; what there is, if there is only one of them."""
        code = rng.random() < CODE_SHARE
        return (self.code if code and self.code else self.prose) or self.code

    def need_prose(self) -> Corpus:
        """The prose; UsageError if there is none."""
        return _needed(self.prose, f"no prose for the split {self.split}: add .txt or .md files")

    def need_code(self) -> Corpus:
        """The code; UsageError if there is none."""
        return _needed(self.code, f"no code for the split {self.split}: add .py files")


def load_material(
    split: str, count_tokens: CountTokens, folder: str | os.PathLike[str] | None = None
) -> Material:
    """Texts of a folder, or the ones that Python brings along; UsageError where a folder has none
    for this split.
    """
    prose, code, fingerprint = _corpora(split, None if folder is None else os.fspath(folder))
    if not prose and not code:
        raise UsageError(f"{folder} has too little text for a split {split} of its own: add texts.")
    return Material(Names(vocabulary(), split), prose, code, count_tokens, fingerprint)


@lru_cache(maxsize=8)
def _corpora(split: str, folder: str | None) -> tuple[Corpus, Corpus, str]:
    texts = load_texts(split, folder)
    return Corpus(texts.prose, is_code=False), Corpus(texts.code, is_code=True), texts.fingerprint


def _needed(corpus: Corpus, message: str) -> Corpus:
    if not corpus:
        raise UsageError(f"there is {message}.")
    return corpus
