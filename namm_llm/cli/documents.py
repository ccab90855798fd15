"""`namm-llm documents list|show|forget`: the memories in the store."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.output import grouped, size

if TYPE_CHECKING:
    from namm_llm.documents.store import Entry

JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object per memory on stdout."
)


@click.group()
def documents() -> None:
    """The memories that are kept, in NAMM_LLM_HOME or the platform's folder for a user's data.

    When they take more than NAMM_LLM_STORE_SIZE (20GB), those without a name that were not used for
    the longest time are removed. Those with a name stay until they are forgotten.
    """


@documents.command(name="list")
@JSON_OPTION
def list_(as_json: bool) -> None:
    """List all memories, the last used first.

    Piped, the columns are separated by tabs: names, ID, tokens read, tokens kept, bytes, last use,
    model, policy, documents, and what is wrong with it, if anything is.
    """
    from namm_llm.documents import MemoryStore

    store = MemoryStore()
    entries = store.entries()
    if as_json:
        for entry in entries:
            click.echo(json.dumps(about(entry), ensure_ascii=False))
    elif sys.stdout.isatty():
        show_table(entries)
    else:
        for entry in entries:
            click.echo("\t".join(str(value).replace("\t", " ") for value in columns(entry)))
    for entry in entries:
        if entry.problem:
            click.echo(f"Warning: {entry.title}: {entry.problem}", err=True)
    total = size(sum(entry.nbytes for entry in entries))
    number = f"{len(entries)} {'memory' if len(entries) == 1 else 'memories'}"
    click.echo(f"{number}, {total} of {size(store.limit)}, in {store.folder}", err=True)


@documents.command()
@click.argument("memory")
@JSON_OPTION
def show(memory: str, as_json: bool) -> None:
    """Show what is known of a MEMORY, given by its name or ID."""
    from namm_llm.documents import MemoryStore

    entry = MemoryStore().entry(memory)
    values = about(entry)
    if as_json:
        click.echo(json.dumps(values, ensure_ascii=False))
        return
    width = max(map(len, values))
    for name, value in (
        values | {"names": ", ".join(entry.names), "nbytes": size(entry.nbytes)}
    ).items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
        click.echo(
            f"{name.replace('_', ' ').replace('nbytes', 'size'):{width}}  "
            f"{'' if text is None else text}".rstrip()
        )


@documents.command(short_help="Remove memories by their names or IDs.")
@click.argument("memories", nargs=-1, required=True, metavar="MEMORY...")
def forget(memories: tuple[str, ...]) -> None:
    """Remove each MEMORY, given by its name or ID; of one with several names, only the name that is
    given.
    """
    from namm_llm.documents import MemoryStore

    store = MemoryStore()
    for memory in memories:
        entry = store.forget(memory)
        stays = (
            f"; the memory stays as {entry.title}" if entry.names else f" ({size(entry.nbytes)})"
        )
        click.echo(f"Forgot {memory}{stays}.", err=True)


def about(entry: Entry) -> dict[str, Any]:
    """All of an entry, ready for JSON."""
    values: dict[str, Any] = {
        "id": entry.id,
        "names": list(entry.names),
        "path": str(entry.path),
        "nbytes": entry.nbytes,
    }
    values["used"] = when(entry.used_at)
    if entry.header is None:
        return {**values, "problem": entry.problem}
    header = entry.header
    return {
        **values,
        **header.extra,
        "model": header.model.name,
        "quantization": header.model.quantization,
        "dtype": header.model.dtype,
        "policy": header.policy,
        "settings": header.eviction,
        "seen_tokens": header.seen_tokens,
        "stored_tokens": header.stored_tokens,
        "text_sha256": header.text_sha256,
    }


def columns(entry: Entry) -> tuple[str | int, ...]:
    """One line of the list."""
    start = (", ".join(entry.names), entry.id)
    end = (entry.nbytes, when(entry.used_at))
    if entry.header is None:
        return (*start, "", "", *end, "", "", "", entry.problem)
    header = entry.header
    return (
        *start,
        header.seen_tokens,
        header.stored_tokens,
        *end,
        header.model.name,
        header.policy,
        header.extra.get("sources", ""),
        "",
    )


def show_table(entries: list[Entry]) -> None:
    """The list for a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("name", "ID", "documents", "tokens kept", "size", "last used", "model", "policy"):
        table.add_column(
            title, justify="right" if title in ("tokens kept", "size") else "left", overflow="fold"
        )
    for entry in entries:
        names, id, seen, stored, nbytes, used, model, policy, sources, problem = columns(entry)
        kept = f"{grouped(int(stored))}/{grouped(int(seen))}" if not problem else "broken"
        cells = (
            names,
            id,
            sources,
            kept,
            size(int(nbytes)),
            used,
            str(model).rpartition("/")[2],
            policy,
        )
        table.add_row(*(Text(str(cell)) for cell in cells))
    Console().print(table)


def when(seconds: float) -> str:
    """Local time to the minute; empty for never."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
