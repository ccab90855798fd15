"""The text of a document, checked before anything is computed with it."""

from __future__ import annotations

import os
from pathlib import Path

from namm_llm.errors import DocumentError


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a text file, checked: DocumentError, in one line, if it is missing, a folder,
    binary, not UTF-8 or empty.
    """
    path = Path(path)
    text = decode(file_bytes(path), str(path))
    check_text(text, str(path))
    return text


def file_bytes(path: Path) -> bytes:
    """What is in a file. DocumentError, in one line, if it is missing, a folder or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DocumentError(f"there is no file {path}.") from error
    except OSError as error:
        if path.is_dir():  # Windows calls it a lack of permission
            raise DocumentError(f"{path} is a folder; name the files in it.") from error
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error


def decode(data: bytes, name: str) -> str:
    """UTF-8 bytes as text. DocumentError if they are something else."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "binary" if b"\0" in data else "not UTF-8 text"
        raise DocumentError(
            f"{name} is {kind} (byte {error.start} of {len(data)}); convert it to UTF-8 text first."
        ) from error


def check_text(text: str, name: str = "the document") -> None:
    """DocumentError for what cannot be read: nothing at all, or what is not text."""
    if not isinstance(text, str):
        raise DocumentError(f"{name} is {type(text).__name__}, not text; decode it first.")
    if not text.strip():
        raise DocumentError(f"{name} is empty; there is nothing to read.")
    if (at := text.find("\0")) >= 0:
        raise DocumentError(
            f"{name} is binary (a zero byte at position {at}); convert it to text first."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{name} holds half a character at position {error.start}; decode it as UTF-8 first."
        ) from error
