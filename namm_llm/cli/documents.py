"""`namm-llm documents list|show|forget`: the memories in the store."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.output import counted, grouped, size, tell

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
    elif sys.stdout.isatty() and entries:
        show_table(entries)
    else:
        for entry in entries:
            click.echo("\t".join(value.replace("\t", " ") for value in columns(entry)))
    for entry in entries:
        if entry.problem:
            tell(f"Warning: {entry.title}: {entry.problem}")
    total = size(sum(entry.nbytes for entry in entries))
    number = counted(len(entries), "memory", "memories")
    tell(f"{number}, {total} of {size(store.limit)}, in {store.folder}")


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
    values |= {"names": ", ".join(entry.names), "nbytes": size(entry.nbytes)}
    for name, value in values.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
        title = {"nbytes": "size"}.get(name, name.replace("_", " "))
        click.echo(f"{title:{width}}  {'' if text is None else text}".rstrip())


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
        rest = f"; the memory stays as {entry.title}" if entry.names else f" ({size(entry.nbytes)})"
        tell(f"Forgot {memory}{rest}.")


def about(entry: Entry) -> dict[str, Any]:
    """All of an entry, ready for JSON."""
    from namm_llm.documents.saved import UNREAD

    values: dict[str, Any] = {
        "id": entry.id,
        "names": list(entry.names),
        "path": str(entry.path),
        "nbytes": entry.nbytes,
        "used": when(entry.used_at),
    }
    if entry.header is None:
        return {**values, "problem": entry.problem}
    header = entry.header
    values |= {name: text for name, text in header.extra.items() if name != UNREAD}
    values |= {name: getattr(header.model, name) for name in ("quantization", "dtype")}
    numbers = ("policy", "seen_tokens", "stored_tokens", "text_sha256")
    values |= {name: getattr(header, name) for name in numbers}
    return {**values, "model": header.model.name, "settings": header.config}


def columns(entry: Entry) -> list[str]:
    """One line of the list."""
    values = {**about(entry), "names": ", ".join(entry.names), "problem": entry.problem or ""}
    order = "names id seen_tokens stored_tokens nbytes used model policy sources problem"
    return [str(values.get(name, "")) for name in order.split()]


def show_table(entries: list[Entry]) -> None:
    """The list for a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("name", "ID", "documents", "tokens kept", "size", "last used", "model", "policy"):
        side = "right" if title in ("tokens kept", "size") else "left"
        table.add_column(title, justify=side, overflow="fold")  # type: ignore[arg-type]
    for entry in entries:
        names, id, seen, stored, nbytes, used, model, policy, sources, problem = columns(entry)
        kept = "broken" if problem else f"{grouped(int(stored))}/{grouped(int(seen))}"
        model = model.rpartition("/")[2]
        cells = (names, id, sources, kept, size(int(nbytes)), used, model, policy)
        table.add_row(*map(Text, cells))
    Console().print(table)


def when(seconds: float) -> str:
    """Local time to the minute; empty for never."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
