"""`namm-llm read FILE`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from namm_llm.cli.inputs import MEMORY_SUFFIX, open_document
from namm_llm.cli.options import Settings, shared_options
from namm_llm.errors import UsageError


@click.command()
@click.argument("file")
@click.option("-o", "--output", metavar="MEMORY", help="Where to save it.  [default: FILE with .namm for its suffix]")
@shared_options(sampling=False)
def read(file: str, output: str | None, settings: Settings) -> None:
    """Read FILE once and save its memory, to be asked with `namm-llm ask MEMORY QUESTION`.

    FILE is a text file, or - for standard input. The name of the saved memory is printed.
    """
    target = memory_path(file, output)
    document = open_document(file, settings)
    document.save(target)
    click.echo(json.dumps({"memory": str(target), **document.info()}) if settings.as_json else str(target))


def memory_path(file: str, output: str | None) -> Path:
    """Where the memory goes; a place that cannot be written is refused before anything is read."""
    if file.endswith(MEMORY_SUFFIX):
        raise UsageError(f"{file} is a memory already; ask it with: namm-llm ask {file} QUESTION")
    if output is None and file == "-":
        raise UsageError("standard input has no name; say where to save its memory with -o MEMORY.namm")
    target = Path(output) if output is not None else Path(file).with_suffix(MEMORY_SUFFIX)
    if target.suffix != MEMORY_SUFFIX:
        raise UsageError(f"{target} must end in {MEMORY_SUFFIX}, so that `namm-llm ask` knows it for a memory")
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise UsageError(f"{target} cannot be written: name a file in a folder that exists and may be written to")
    return target
