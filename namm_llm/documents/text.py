"""The text of a document, checked before anything is computed with it."""

from __future__ import annotations

import os
from pathlib import Path

from namm_llm.errors import DocumentError


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, checked: DocumentError, in one line, if it is missing, a folder, binary, not UTF-8 or empty."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DocumentError(f"there is no file {path}.") from error
    except IsADirectoryError as error:
        raise DocumentError(f"{path} is a folder; name a text file.") from error
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "binary" if b"\0" in data else "not UTF-8 text"
        raise DocumentError(f"{path} is {kind} (byte {error.start} of {len(data)}); convert it to UTF-8 text first.") from error
    check_text(text, str(path))
    return text


def check_text(text: str, name: str = "the document") -> None:
    """DocumentError for what cannot be read: nothing at all, or what is not text."""
    if not isinstance(text, str):
        raise DocumentError(f"{name} is {type(text).__name__}, not text; decode it first.")
    if not text.strip():
        raise DocumentError(f"{name} is empty; there is nothing to read.")
    if (at := text.find("\0")) >= 0:
        raise DocumentError(f"{name} is binary (a zero byte at position {at}); convert it to text first.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"{name} holds half a character at position {error.start}; decode it as UTF-8 first.") from error
