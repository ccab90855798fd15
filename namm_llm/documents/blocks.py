"""The text of a document on its way into a model, block by block, so that a long one need never be
there at once.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from namm_llm.documents.text import check_text
from namm_llm.errors import DocumentError
from namm_llm.models.vision.parts import MARK, document_parts, mark_of
from namm_llm.models.vision.picture import Picture

Text = str | Sequence[Any] | Iterable[str] | os.PathLike[str]
"""A text, or several, or a stream; or pictures, alone or among texts."""
BLOCK = 1 << 15  # characters
_PARTS = 16  # pictures and texts between them that are read together
BETWEEN = "\n\n"  # stands between two documents
# where tokenizers begin anew: at a word behind a newline, at the space behind a word
_BORDERS = (re.compile(r"(?<=\n)(?=[^\W_])"), re.compile(r"(?<=\S)(?= )"))


class TextBlocks:
    """Iterates once over the checked text of one document (a text), several (a list or tuple of
    texts, joined by an empty line) or a stream (any other iterable of pieces: joined as they are,
    and cut into blocks where tokenizers begin anew, or after `BLOCK` characters without such a
    border), or pictures, alone or with texts between them, which stay as they are (see
    `document_parts`). DocumentError for what cannot be read.
    """

    def __init__(
        self, text: Text, name: str = "the document", *, known: tuple[int, str] = (0, "")
    ) -> None:
        """known: characters at the beginning of a stream that were read before and are passed over,
        and their SHA-256.
        """
        self._hash = hashlib.sha256()
        self._name = name
        self._pictures = dict[str, Picture]()
        self.characters = known[0]
        """Of the text that has been iterated over, with those that were known."""
        self._blocks = self._blocks_of(text)
        if known[0]:
            self._blocks = self._behind(self._blocks, *known)

    def _blocks_of(self, text: Text) -> Iterator[str]:
        parts = document_parts(text)
        if parts is not None:
            return self._of_parts(parts)
        if isinstance(text, (list, tuple)) and text:
            for number, one in enumerate(text, 1):
                check_text(one, f"document {number} of {len(text)}")
            text = BETWEEN.join(text)
        if isinstance(text, (str, bytes, bytearray, Mapping)) or not isinstance(text, Iterable):
            # it says what is wrong with the others
            check_text(text, self._name)  # type: ignore[arg-type]
            return iter([text])  # type: ignore[list-item]
        return self._cut(text)

    def __iter__(self) -> Iterator[str]:
        is_empty = not self.characters
        for block in self._blocks:
            if block.strip():
                check_text(block, self._name)
                is_empty = False
            self._hash.update(block.encode())
            self.characters += len(block)
            yield block
        if is_empty:
            check_text("", self._name)

    def pictures_of(self, block: str) -> list[Picture]:
        """The pictures whose marks a block holds."""
        return [
            self._pictures[mark[0]] for mark in MARK.finditer(block) if mark[0] in self._pictures
        ]

    def _of_parts(self, parts: Sequence[str | Picture]) -> Iterator[str]:
        """Texts as they stand, and marks of some pictures at a time."""
        self._pictures = {mark_of(each): each for each in parts if isinstance(each, Picture)}
        texts = [each if isinstance(each, str) else mark_of(each) for each in parts]
        for start in range(0, len(texts), _PARTS):
            yield "".join(texts[start : start + _PARTS])

    @property
    def sha256(self) -> str:
        """Of the whole text in UTF-8, once it has been iterated over."""
        return self._hash.hexdigest()

    @staticmethod
    def hash_of(text: str) -> str:
        """The `sha256` of a text that is there as a whole."""
        return hashlib.sha256(text.encode()).hexdigest()

    def _behind(self, blocks: Iterable[str], left: int, sha256: str) -> Iterator[str]:
        """The blocks behind the first `left` characters, which are compared."""
        characters = left
        for block in blocks:
            known, new = block[:left], block[left:]
            left -= len(known)
            self._hash.update(known.encode("utf-8", "surrogatepass"))
            if known and not left and self.sha256 != sha256:
                break
            if new:
                yield new
        else:
            if not left:
                return
        raise DocumentError(
            f"{self._name} does not begin with the {characters} characters that its memory has "
            "read; give that text from its beginning, or keep the new memory under another name."
        )

    def _cut(self, pieces: Iterable[str]) -> Iterator[str]:
        waiting: list[str] = []
        count = 0
        for piece in pieces:
            if not isinstance(piece, str):
                check_text(piece, f"a piece of {self._name}")
            for start in range(0, len(piece), BLOCK):
                waiting.append(piece[start : start + BLOCK])
                count += len(waiting[-1])
                if count > BLOCK:
                    text = "".join(waiting)
                    at = _border(text)
                    yield text[:at]
                    waiting, count = [text[at:]], len(text) - at
        if count:
            yield "".join(waiting)


def _border(text: str) -> int:
    """Where to cut a text, as late as possible."""
    for pattern in _BORDERS:
        at = max((match.start() for match in pattern.finditer(text)), default=0)
        if at:
            return at
    return len(text)
