"""The text of a document, checked before anything is computed with it."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from namm_llm.errors import DocumentError

# byte order marks; that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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
    """Bytes in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as text. DocumentError if
    they are something else.
    """
    encoding = next((each for mark, each in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding in ("utf-16", "utf-32"):
            kind = f"damaged {encoding.upper()} text"
        else:
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
