"""Kinds of tokens: comments, names, strings and so on in code, words and punctuation in prose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

WHITE_SPACE = "white space"
FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for from with as and or but not if is are be was has it its this "
    "that which can".split()
)
_PROSE_PARTS = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+)|(?P<word>[^\W\d_]+)|(?P<punctuation>.)", re.DOTALL
)
# pygments' name of a token -> our kind; the longest name that fits counts
_CODE = {
    "Token.Comment": "comment",
    "Token.Keyword": "keyword",
    "Token.Literal.Number": "number",
    "Token.Literal.String": "string",
    "Token.Literal.String.Doc": "docstring",
    "Token.Name": "name",
    "Token.Operator": "punctuation",
    "Token.Operator.Word": "keyword",
    "Token.Punctuation": "punctuation",
}
# pygments knows some of these too, but they are read as prose
_PROSE_SUFFIXES = frozenset(("", ".txt", ".text", ".md", ".rst", ".html", ".htm", ".pdf", ".docx"))


def is_code(name: str) -> bool:
    """Whether a file of this name is code, by its suffix."""
    from pygments.lexers import find_lexer_class_for_filename

    return (
        PurePath(name).suffix.lower() not in _PROSE_SUFFIXES
        and find_lexer_class_for_filename(name) is not None
    )


def character_kinds(text: str, name: str = "") -> list[str]:
    """The kind of each character of a document; "" where it cannot be told.

    name: the file's, whose suffix says whether it is code.
    """
    return _code_kinds(text, name) if is_code(name) else _prose_kinds(text)


def token_kind(text: str, kinds: Sequence[str], start: int, stop: int) -> str:
    """The kind of the token `text[start:stop]`: of its first character that is no white space,
    because a word's token has the space before it.

    kinds: of each character.
    """
    return next((kinds[at] for at in range(start, stop) if not text[at].isspace()), WHITE_SPACE)


def _prose_kinds(text: str) -> list[str]:
    kinds = [""] * len(text)
    for part in _PROSE_PARTS.finditer(text):
        kinds[part.start() : part.end()] = [_prose_kind(part)] * len(part[0])
    return kinds


def _prose_kind(part: re.Match[str]) -> str:
    if part.lastgroup == "word":
        return "function word" if part[0].lower() in FUNCTION_WORDS else "other word"
    return {"space": WHITE_SPACE, "number": "number"}.get(str(part.lastgroup), "punctuation")


def _code_kinds(text: str, name: str) -> list[str]:
    from pygments.lexers import get_lexer_for_filename

    kinds = [WHITE_SPACE if character.isspace() else "" for character in text]
    for start, kind, value in get_lexer_for_filename(name).get_tokens_unprocessed(text):
        known = [name for name in _CODE if f"{kind}.".startswith(f"{name}.")]
        if known:
            kinds[start : start + len(value)] = [_CODE[max(known, key=len)]] * len(value)
    return kinds
