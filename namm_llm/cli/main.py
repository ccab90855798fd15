"""The `namm-llm` group: finds a command's module when it is called; what goes wrong becomes one
line and an exit code.

Exit codes: 0 done, 1 error, 2 wrong use, 130 interrupted. An exception that is not ours is a bug,
with its traceback.
"""

import sys
from importlib import import_module
from typing import Any

import click

from namm_llm.errors import NammError
from namm_llm.version import __version__

COMMANDS = {
    "ask": "Ask questions about a document or a saved memory.",
    "bench": "Measure speed and memory against transformers, or say what memory it takes.",
    "chat": "Chat with a model.",
    "documents": "List, show and forget the memories that are kept.",
    "eval": "Compare policies and budgets by what the model still answers.",
    "inspect": "Show what the cache kept of a document and what it forgot.",
    "read": "Read documents once and keep their memory.",
    "summarize": "Summarize a document.",
    "train": "Make a NAMM for a model: distil, evolve, calibrate.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their name, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"namm_llm.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

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


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="namm-llm")
def main() -> None:
    """Read long documents with a local model whose cache forgets what it does not need."""
