"""What a command reads: documents, memories and standard input."""

from __future__ import annotations

import codecs
import itertools
import os
import select
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from namm_llm.cli.options import Settings
from namm_llm.cli.output import tell
from namm_llm.errors import DocumentError

if TYPE_CHECKING:
    from io import BufferedReader

    from namm_llm.document import Document
    from namm_llm.documents import FileText

MEMORY_SUFFIX = ".namm"
STREAM_BYTES = 1 << 17
PATIENCE_SECONDS = 2.0


def open_document(
    file: str, settings: Settings, *, keep: bool = False, short: bool = False
) -> Document:
    """The memory of a document: a saved one (.namm), one from the store (by name, ID, or because
    the same text was read before with the same settings), or one that is read now. keep: put a long
    one that was read now into the store, and say so. short: keep a short one too.

    A bad document is refused before a model is loaded.
    """
    from namm_llm.cli.memories import keep_long, open_saved, recall_or_read, saved_path

    if (saved := saved_path(file)) is not None:
        return open_saved(saved, file, settings)
    if file != "-" and not Path(file).suffix and not Path(file).exists():
        raise DocumentError(
            f"there is no file {file} and no memory of this name; `namm-llm documents "
            "list` shows the memories."
        )
    sources = [source_of(file)]
    recalled = recall_or_read(sources, settings)
    if keep and not recalled.cached:
        keep_long(recalled, sources, short=short)
    return recalled.document


def split_documents(arguments: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """The documents at the beginning of the arguments behind the first document, and the questions:
    a document is a file, or the name or ID of a memory; the last argument is always a question.
    """
    from namm_llm.cli.memories import saved_path

    count = 0
    while count < len(arguments) - 1:
        each = arguments[count]
        if not (each.endswith(MEMORY_SUFFIX) or Path(each).exists() or saved_path(each)):
            break
        count += 1
    return list(arguments[:count]), arguments[count:]


def open_documents(files: list[str], settings: Settings, *, keep: bool = False) -> Document:
    """The memory of one document, or of several that are joined; see `open_document`."""
    documents = [open_document(file, settings, keep=keep, short=len(files) > 1) for file in files]
    if len(documents) == 1:
        return documents[0]
    from namm_llm.runner import Runner

    return Runner(documents[0].session).combine(documents)


def source_of(file: str) -> FileText:
    """What `document_file` reads, or a film: a folder of pictures, or one picture."""
    from namm_llm.documents import read_film

    film = None if file == "-" else read_film(file)
    return document_file(file) if film is None else film


def document_file(file: str) -> FileText:
    """FILE (txt, md, html, pdf, docx, ...), or standard input for `-`. What of it cannot be read is
    said on stderr.
    """
    from namm_llm.documents import read_file, text_of

    if file != "-":
        return _told(read_file(file))
    return _told(text_of(sys.stdin.buffer.read(), "standard input"))


def _told(found: FileText) -> FileText:
    for warning in found.warnings:
        tell(f"Warning: {warning}")
    return found


def standard_input() -> list[FileText] | Iterator[str]:
    """A document, or the pieces of one that is too long to wait for its end: behind the lines that
    come first, bytes that are no text become U+FFFD.
    """
    from namm_llm.documents import text_of

    source, name = cast("BufferedReader", sys.stdin.buffer), "standard input"
    first = source.read(STREAM_BYTES)
    if len(first) < STREAM_BYTES or first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return [_told(text_of(first + source.read(), name))]
    text_of(first[: first.rfind(b"\n") + 1] or first, name)
    data = itertools.chain([first], iter(lambda: source.read1(STREAM_BYTES), b""))
    return _readable(codecs.iterdecode(data, "utf-8-sig", "replace"))


def _readable(texts: Iterator[str]) -> Iterator[str]:
    is_told = False
    for text in texts:
        readable = text.replace("\0", "\ufffd")
        if "\ufffd" in readable and not is_told:
            tell("Some bytes of standard input are no text; they are read as U+FFFD.")
            is_told = True
        yield readable


def piped_text() -> str:
    """What was piped or redirected into the command; empty if nothing was."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError):  # closed, or no file at all
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    if os.name == "posix" and not select.select([sys.stdin], [], [], PATIENCE_SECONDS)[0]:
        tell("Waiting for standard input to end; add '< /dev/null' if there is none.")
    return sys.stdin.read().strip()
