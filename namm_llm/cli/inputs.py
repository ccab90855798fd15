"""What a command reads: documents, saved memories and standard input."""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING

import click

from namm_llm.cli.options import Settings
from namm_llm.cli.output import progress
from namm_llm.errors import DocumentError

if TYPE_CHECKING:
    from namm_llm.documents import DocumentMemory

MEMORY_SUFFIX = ".namm"


def open_document(file: str, settings: Settings) -> DocumentMemory:
    """The memory of a document, read now or saved before. A bad text is refused before a model is loaded."""
    if file.endswith(MEMORY_SUFFIX):
        return settings.load().open(file)
    text = document_text(file)
    runner = settings.load()
    with progress("Reading") as on_progress:
        return runner.read(text, on_progress=on_progress)


def document_text(file: str) -> str:
    """The text of FILE, or of standard input for `-`."""
    from namm_llm.documents import read_text

    if file != "-":
        return read_text(file)
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError("standard input is not UTF-8 text: convert it first, for example with iconv") from error
    if not text.strip():
        raise DocumentError("standard input is empty; a document was expected")
    return text


def piped_text() -> str:
    """What was piped or redirected into the command; empty if nothing was."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    if os.name == "posix" and not select.select([sys.stdin], [], [], 2.0)[0]:
        click.echo("Waiting for standard input to end; add '< /dev/null' if there is none.", err=True)
    return sys.stdin.read().strip()
