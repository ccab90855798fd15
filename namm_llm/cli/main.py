"""The `namm-llm` group: finds a command's module when it is called; what goes wrong becomes one
line and an exit code.

Exit codes: 0 done, 1 error, 2 wrong use, 130 interrupted. An exception that is not ours is a bug,
with its traceback. Packages add commands by entry points of the group `namm_llm.commands`.
"""

import sys
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from namm_llm.errors import NammError, UsageError
from namm_llm.version import __version__

COMMANDS = {
    "ask": "Ask questions about a document or a saved memory.",
    "chat": "Chat with a model.",
    "documents": "List, show and forget the memories that are kept.",
    "inspect": "Show what the cache kept of a document and what it forgot.",
    "models": "List, fetch, show and convert models.",
    "read": "Read documents once and keep their memory.",
    "serve": "Serve a model to clients of OpenAI's interface.",
    "summarize": "Summarize a document.",
}
LAB = {
    "bench": "Measure speed and memory against transformers, or say what memory it takes.",
    "eval": "Compare policies and budgets by what the model still answers.",
    "train": "Make a NAMM for a model: distil, evolve, calibrate.",
}
_MODULES = {"chat": "namm_llm.cli.chat.command"}
# what people type who know other programs
_OTHER_NAMES = {
    "forget": "documents forget",
    "generate": "ask",
    "list": "documents list",
    "ls": "documents list",
    "pull": "models pull",
    "query": "ask",
    "rm": "documents forget",
    "run": "chat",
    "show": "documents show",
    "summarise": "summarize",
    "talk": "chat",
}


@cache
def plugins() -> dict[str, EntryPoint]:
    """The commands of other packages, the lab's included, by name."""
    return {point.name: point for point in entry_points(group="namm_llm.commands")}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their name, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *LAB, *plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = import_module(_MODULES.get(cmd_name, f"namm_llm.cli.{cmd_name}"))
            command = getattr(module, cmd_name)
        elif cmd_name in plugins():
            command = _load(plugins()[cmd_name])
        elif cmd_name in LAB:
            raise UsageError(_needs_lab(cmd_name))
        else:
            return None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = get_close_matches(name, self.list_commands(ctx), n=1)
            meant = _OTHER_NAMES.get(name, near[0] if near else "")
            hint = f" Did you mean '{meant}'?" if meant else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = {
            name: f"Of {point.dist.name if point.dist else point.value}."
            for name, point in plugins().items()
            if name not in LAB
        }
        for title, rows in (("Commands", COMMANDS), ("Lab", LAB), ("Plug-ins", others)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(list(rows.items()))

    def invoke(self, ctx: click.Context) -> Any:
        value = super().invoke(ctx)
        # a reader that has left (`| head`) is noticed here, where click handles it, and not at exit
        sys.stdout.flush()
        return value

    def main(self, *args: Any, **kwargs: Any) -> Any:
        code: Any
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except NammError as error:
            click.echo(f"Error: {error}", err=True)
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            code = 130
        sys.exit(code)


def _load(point: EntryPoint) -> Any:
    """The command of an entry point. UsageError that says what to install if its package is
    missing.
    """
    try:
        return point.load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != point.module.partition(".")[0]:
            raise
        raise UsageError(_needs_lab(point.name)) from error


def _needs_lab(name: str) -> str:
    return f"namm-llm {name} is part of the lab: pip install 'namm-llm[lab]'."


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="namm-llm")
def main() -> None:
    """Read long documents with a local model whose cache forgets what it does not need."""
