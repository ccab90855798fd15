"""`namm-llm inspect FILE...`."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.inputs import MEMORY_SUFFIX, source_of
from namm_llm.cli.options import Settings, command
from namm_llm.cli.output import tell
from namm_llm.cli.progress import ProgressBar
from namm_llm.errors import DocumentError, UsageError
from namm_llm.io import check_writable

if TYPE_CHECKING:
    from namm_llm.config import CacheConfig
    from namm_llm.document import Document
    from namm_llm.documents import FileText
    from namm_llm.documents.blocks import Text
    from namm_llm.inspect import FilmInspection, Inspection
    from namm_llm.runner import Runner


BUDGET = 0.25  # without eviction there is nothing to see
OF_A_POLICY = ("policy", "budget", "budget_scope", "sinks", "protect_recent")


@command("load", "run", "cache", output=False)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-o",
    "--output",
    metavar="PAGE",
    help="Write a page for a browser (.html), which needs no network.",
)
@click.option(
    "--versus",
    metavar="WHAT",
    help="Beside it, the same with another POLICY, BUDGET or POLICY:BUDGET.",
)
@click.option(
    "--memory",
    metavar="MEMORY",
    help="What of FILE this memory kept (its name, ID or .namm file); nothing is read.",
)
@click.option("--png", metavar="FILE", help="Draw the plots (.png, .svg or .pdf).")
@click.option("--terminal", is_flag=True, help="Print the coloured document, also into a pipe.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object per layer, head, kind of token and forgotten span.",
)
def inspect(
    files: tuple[str, ...],
    output: str | None,
    versus: str | None,
    memory: str | None,
    png: str | None,
    terminal: bool,
    as_json: bool,
    settings: Settings,
) -> None:
    """Show what the cache kept of FILES and what it forgot.

    Every token is shaded by how many layers and heads still hold it after the reading. Without
    --policy and --budget, a quarter of the tokens is kept. Without -o, --png and --json the
    document is printed in colour, or into a pipe a table of numbers, separated by tabs.

    \b
    namm-llm inspect handbook.txt -o handbook.html --budget 0.0625
    namm-llm inspect cache.py -o cache.html --versus keydiff     # another policy
    namm-llm inspect cache.py -o cache.html --versus 0.0625      # another budget
    namm-llm inspect film/ -o film.html                          # frames in a folder
    """
    check_outputs(output, png)
    if versus is not None:
        check_versus(versus)
    found = inspected(files, versus, memory, settings)
    show(found, output, png, as_json=as_json, terminal=terminal)


def inspected(
    files: tuple[str, ...], versus: str | None, memory: str | None, settings: Settings
) -> Inspection | FilmInspection:
    """The documents, read or recalled, with what the memory or the memories of them hold."""
    from namm_llm.documents import content_of, join_texts
    from namm_llm.inspect import inspect_film, inspect_memories
    from namm_llm.runner import Runner

    sources = [source_of(file) for file in files]
    text = join_texts(sources)
    first = (
        read_one(sources, settings) if memory is None else open_one(memory, text, sources, settings)
    )

    runner = Runner(first.session)
    memories = [first]
    if versus is not None:
        memories.append(read_other(runner, content_of(sources), versus, first, settings))
    name = ", ".join(source.name for source in sources)
    pictures = [picture for source in sources for picture in source.pictures]
    if pictures:
        return inspect_film(runner, name, text, pictures, memories)
    return inspect_memories(runner, name, text, memories)


def show(found: Any, output: str | None, png: str | None, *, as_json: bool, terminal: bool) -> None:
    """What was found in the forms that were asked for."""
    from namm_llm.inspect import FilmInspection, rows_of, strip, write_page
    from namm_llm.inspect.plots import draw_plots
    from namm_llm.inspect.terminal import print_document, table_lines

    ways: Any = (write_page, draw_plots), rows_of, table_lines
    is_film = isinstance(found, FilmInspection)
    if is_film:
        ways = (strip.write_film_page, strip.draw_film), FilmInspection.rows, strip.film_lines
    for path, write in zip((output, png), ways[0], strict=True):
        if path is not None:
            write(found, path)
            tell(f"Wrote {path}")
    if as_json:
        for row in ways[1](found):
            click.echo(json.dumps(row, ensure_ascii=False))
    elif not is_film and (terminal or (sys.stdout.isatty() and output is None and png is None)):
        print_document(found)
    elif output is None and png is None:
        for line in ways[2](found):
            click.echo(line)


def check_outputs(output: str | None, png: str | None) -> None:
    """UsageError for what could not be written, before anything is read; and the plot's library is
    there.
    """
    if output is not None:
        check_writable(output, ".html", ".htm")
    if png is not None:
        from namm_llm.inspect.figure import check_figure

        check_figure(png)


def check_versus(versus: str) -> None:
    """What is wrong with it is said before anything is read; whether the model has a NAMM is seen
    when the NAMM is loaded.
    """
    from namm_llm.config import make_cache_config

    policy, budget = policy_and_budget(versus)
    if policy is None and budget is None:
        raise UsageError(
            "--versus takes a POLICY, a BUDGET or POLICY:BUDGET, such as keydiff:0.0625, "
            f"not {versus!r}"
        )
    if policy != "namm":
        make_cache_config(policy, budget=budget if budget or policy == "full" else BUDGET)


def read_one(sources: list[FileText], settings: Settings) -> Document:
    """The documents read now, or recalled if they were read before with the same settings."""
    from namm_llm.cli.memories import recall_or_read

    if not {"policy", "budget"} & set(settings.runner):
        settings = replace(settings, runner={**settings.runner, "budget": BUDGET})
    return recall_or_read(sources, settings).document


def open_one(memory: str, text: str, sources: list[FileText], settings: Settings) -> Document:
    """A saved memory, if it is one of this text."""
    from namm_llm.cli.memories import open_saved, saved_path
    from namm_llm.documents import read_header

    path = saved_path(memory)
    if path is None:
        raise DocumentError(
            f"there is no memory {memory}; give a {MEMORY_SUFFIX} file or what `namm-llm "
            "documents list` shows."
        )
    if read_header(path).text_sha256 != hashlib.sha256(text.encode()).hexdigest():
        names = ", ".join(source.name for source in sources)
        raise DocumentError(
            f"{memory} is no memory of {names}: it was read from another text. Give the "
            "file it was read from."
        )
    return open_saved(path, memory, settings)


def read_other(
    runner: Runner, text: Text, versus: str, first: Document, settings: Settings
) -> Document:
    """The same text read with another policy or budget; what is not named is as for `first`."""
    other = other_eviction(runner, versus, first.cache.config, settings.runner)
    with ProgressBar() as bar:
        return runner.with_cache(other).read(text, on_progress=bar.update)


def other_eviction(
    runner: Runner, versus: str, eviction: CacheConfig, given: dict[str, Any]
) -> CacheConfig:
    """The settings that --versus means beside `eviction`. given: options of the command line."""
    from namm_llm.policies import parse_budget

    policy, budget = policy_and_budget(versus)
    if policy in (None, eviction.policy.name) and eviction.policy.evicts:
        return replace(eviction, budget=parse_budget(budget) or eviction.budget)
    kept = ("namm", "budget_scope", "sinks", "protect_recent")
    options = {name: given[name] for name in kept if name in given}
    usual = None if policy == "full" else eviction.budget or BUDGET
    # a budget beside the full cache is that of the policy that a budget has without one
    other = runner.with_cache(policy, budget=budget or usual, **options).config
    # interval and precision stay; the scope and the protected tokens are the policy's own matter
    same = {
        field.name: getattr(eviction, field.name)
        for field in fields(eviction)
        if field.name not in OF_A_POLICY
    }
    return replace(other, **same)


def policy_and_budget(versus: str) -> tuple[str | None, str | None]:
    """`keydiff`, `0.0625` or `keydiff:0.0625` as policy and budget, None for what is not named."""
    policy, colon, budget = versus.partition(":")
    if not colon and policy[:1] in [*"0123456789."]:
        return None, versus
    return policy or None, budget or None
