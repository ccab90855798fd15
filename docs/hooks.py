"""Pages of the site that are made from the code when it is built, so that they cannot drift.

`cli.md` is what `--help` of each command prints. The pages under `api/` have every public name of
`namm_llm`, once.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PACKAGE = Path(__file__).resolve().parent.parent / "namm_llm"

# page of `api/`: its title, what it says first, and the parts of namm_llm whose names it holds
API_PAGES = {
    "runner": (
        "Runner and documents",
        "Load a model, read documents, ask, chat and stream.",
        ("runner", "document", "conversation", "documents", "engine", "models"),
    ),
    "cache": (
        "Cache",
        "The evicting cache by itself, for `model.generate` of transformers.",
        ("cache", "config", "tokens", "attention"),
    ),
    "policies": ("Policies and NAMMs", "What decides which tokens stay.", ("policies", "namm")),
    "summaries": (
        "Summaries and inspection",
        "Summaries of texts of any length, and what a cache kept of a text.",
        ("summaries", "inspect"),
    ),
    "errors": (
        "Errors",
        "Every mistake of a user is a `NammError` whose message is one line: what is wrong and "
        "what to do.",
        ("errors",),
    ),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; called by mkdocs."""
    from mkdocs.structure.files import File

    from namm_llm.cli.main import main

    files.append(File.generated(config, "cli.md", content=cli_page(main)))
    for page, content in api_pages().items():
        files.append(File.generated(config, f"api/{page}.md", content=content))
    return files


def cli_page(root: click.Command) -> str:
    """The help of a command and of all commands below it, as one Markdown page."""
    parts = [
        "# Command line",
        "What `--help` prints, for every command.",
        "stdout holds the answer alone; progress, statistics and errors go to stderr.",
        "Exit codes: 0 done, 1 error, 2 wrong use, 130 interrupted.",
    ]
    for name, help_text in commands(root, "namm-llm"):
        parts += [f"## {name}", f"```text\n{help_text}\n```"]
    return "\n\n".join(parts) + "\n"


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Name and help text of a command, then of each below it."""
    context = click.Context(command, info_name=name.split()[-1], parent=parent, terminal_width=88)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from commands(found, f"{name} {child}", context)


def api_pages() -> dict[str, str]:
    """The pages of `api/`: name to Markdown, with a directive of mkdocstrings for each name."""
    home = {
        part: (page, rank)
        for page, (_, _, parts) in API_PAGES.items()
        for rank, part in enumerate(parts)
    }
    names: dict[str, list[tuple[int, str]]] = {page: [] for page in API_PAGES}
    for name, part in public_names().items():
        if part not in home:
            raise LookupError(f"no page of docs/hooks.py takes namm_llm.{name}, of {part}")
        page, rank = home[part]
        names[page].append((rank, name))
    return {
        page: "\n\n".join(
            [f"# {title}", intro, *(f"::: namm_llm.{name}" for _, name in sorted(names[page]))]
        )
        + "\n"
        for page, (title, intro, _) in API_PAGES.items()
    }


def public_names() -> dict[str, str]:
    """Each public name of `namm_llm` and the part it comes from, without importing the package."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    return {
        alias.name: (node.module or "").split(".")[1]
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
