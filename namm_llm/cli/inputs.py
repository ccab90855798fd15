"""What a command reads: documents, saved memories and standard input."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

import click

from namm_llm.cli.options import Settings
from namm_llm.cli.output import ReadingBar, Start
from namm_llm.errors import DocumentError

if TYPE_CHECKING:
    from namm_llm.documents import DocumentMemory
    from namm_llm.runner import Generation, SamplingParams, Stream

MEMORY_SUFFIX = ".namm"
PATIENCE_SECONDS = 2.0


def open_document(file: str, settings: Settings) -> DocumentMemory[Generation, Stream]:
    """The memory of a document, read now or saved before. A bad text is refused before a model is loaded."""
    if file.endswith(MEMORY_SUFFIX):
        return settings.load().open(file)
    text = document_text(file)
    runner = settings.load()
    with ReadingBar() as bar:
        return runner.read(text, on_progress=bar.update)


def question(document: DocumentMemory[Generation, Stream], text: str, params: SamplingParams) -> Start:
    """Begins the answer to a question about a document."""

    def start(*, cancel: Event, on_progress: Callable[[int, int], None]) -> Stream:
        return document.stream(text, params, cancel=cancel)  # questions are short, so there is no progress to report

    return start


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
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError):  # closed, or no file at all
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    if os.name == "posix" and not select.select([sys.stdin], [], [], PATIENCE_SECONDS)[0]:
        click.echo("Waiting for standard input to end; add '< /dev/null' if there is none.", err=True)
    return sys.stdin.read().strip()
