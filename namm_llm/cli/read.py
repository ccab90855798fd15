"""`namm-llm read FILE...`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from namm_llm.cli.inputs import MEMORY_SUFFIX, source_of, standard_input
from namm_llm.cli.options import Settings, command
from namm_llm.cli.output import grouped, size, tell
from namm_llm.errors import UsageError
from namm_llm.io import check_writable


@command("load", "run", "cache")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--name",
    metavar="NAME",
    help="How to call the memory; one with a name is never removed to make room.",
)
@click.option(
    "-o", "--output", metavar="MEMORY", help="Save it as this file (.namm) and not in the store."
)
def read(files: tuple[str, ...], name: str | None, output: str | None, settings: Settings) -> None:
    """Read FILES once and keep their memory, to be asked with `namm-llm ask MEMORY QUESTION`.

    A FILE is text, md, html, pdf or docx, or - for standard input. Several are one memory; each
    then begins with the line "Document: NAME". What to ask for is printed: the NAME, the ID that
    the memory got in the store, or the file of -o. `namm-llm documents` lists and forgets what is
    kept. What was read before with the same settings is not read again.

    More than 128 KiB on standard input are a stream: read while they come, and saved every
    --save-every tokens. The same command with the same input, or with more behind it, goes on where
    it was killed. Behind the first 128 KiB, bytes that are no text are read as U+FFFD, and stderr
    says so.

    \b
    namm-llm read handbook.pdf rules.docx --name handbooks --budget 0.25
    namm-llm ask handbooks "Who signs travel requests?"
    """
    target = memory_path(files, name, output)
    from namm_llm.cli.memories import keep, keep_reading, recall_or_read, sources_of
    from namm_llm.documents import FileText
    from namm_llm.documents.names import check_name

    name = check_name(name, MEMORY_SUFFIX) if name is not None else None
    given = standard_input() if files == ("-",) else [source_of(file) for file in files]
    sources = [FileText("standard input", "")]
    if isinstance(given, Iterator):
        recalled = keep_reading(given, settings, name, target)
    else:
        sources, recalled = given, recall_or_read(given, settings)
    if target is None:
        keep(recalled, sources, name)
    else:
        extra = {**recalled.document.extra, "sources": sources_of(sources)}
        recalled.document.save(target, extra=extra)
    memory = str(target or name or recalled.id)
    about = {
        "memory": memory,
        "id": recalled.id,
        "cached": recalled.cached,
        "sources": [source.name for source in sources],
    }
    info = recalled.document.info()
    click.echo(json.dumps({**about, **info}, ensure_ascii=False) if settings.as_json else memory)
    if settings.stats:
        kept = f"{grouped(info['stored_tokens'])}/{grouped(info['seen_tokens'])}"
        tell(f"KV {kept} kept {size(info['nbytes'])}")


def memory_path(files: tuple[str, ...], name: str | None, output: str | None) -> Path | None:
    """Where -o wants the memory, None for the store; what cannot work is refused before anything is
    read.
    """
    for file in files:
        if file.endswith(MEMORY_SUFFIX):
            raise UsageError(
                f"{file} is a memory already; ask it with: namm-llm ask {file} QUESTION."
            )
    if files.count("-") > 1:
        raise UsageError("- stands for standard input and can be given only once.")
    if output is None:
        return None
    if name is not None:
        raise UsageError("--name is for memories in the store; leave out one of --name and -o.")
    return check_writable(output, MEMORY_SUFFIX)
