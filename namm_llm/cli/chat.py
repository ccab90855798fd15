"""`namm-llm chat`: the terminal loop. What was said and the slash commands are in `conversation.py`."""

from __future__ import annotations

import contextlib
import sys
from functools import partial

import click

from namm_llm.cli.conversation import Conversation
from namm_llm.cli.options import Settings, shared_options
from namm_llm.cli.output import answer
from namm_llm.errors import NammError

PROMPT = ">>> "


@click.command()
@click.option("-s", "--system", metavar="TEXT", help="System message.")
@shared_options()
def chat(system: str | None, settings: Settings) -> None:
    """Chat with a model. /help lists what else can be typed.

    Without a terminal, every line of standard input is a message.
    """
    conversation = Conversation(settings.params(), system or "", settings.stats)
    runner = settings.load()
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):  # no readline: lines come without editing and history
            import readline  # noqa: F401
        click.echo("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", err=True)
    while not conversation.over and (line := next_line(terminal)) is not None:
        try:
            if conversation.take(line):
                start = partial(runner.stream, conversation.messages, conversation.params)
                result = answer(start, as_json=settings.as_json, stats=conversation.stats)
                conversation.reply(result.text)
                if result.finish_reason == "cancelled":
                    raise KeyboardInterrupt
        except (NammError, KeyboardInterrupt) as error:
            conversation.withdraw()
            if not terminal:
                raise
            click.echo(f"Error: {error}" if isinstance(error, NammError) else "(stopped)", err=True)


def next_line(terminal: bool) -> str | None:
    """The next line that was typed or piped in; None at its end. Ctrl-C at the prompt leaves a hint."""
    if not terminal:
        return sys.stdin.readline() or None
    while True:
        try:
            if sys.stdout.isatty():
                return input(PROMPT)
            click.echo(PROMPT, nl=False, err=True)  # stdout belongs to the answers
            return sys.stdin.readline() or None
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo("\n(Ctrl-D or /exit leaves)", err=True)
