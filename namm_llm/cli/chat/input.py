"""Where the messages of a chat come from: a pipe, a plain terminal, or one that can edit lines."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from namm_llm.cli.output import tell

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'
HINT = "(Ctrl-D or /exit leaves)"


class Lines(Protocol):
    """Gives one message after the other. begun: what the next one begins with, to be changed; None
    at the end.
    """

    def next(self, begun: str = "") -> str | None: ...


def lines_of(commands: Sequence[str], history: Path | None) -> Lines:
    """The way that fits standard input. commands: slash commands to complete. history: the file of
    what was typed; None keeps none.
    """
    if not sys.stdin.isatty():
        return PipedLines()
    if os.environ.get("TERM", "dumb") == "dumb" or not (sys.stdout.isatty() or sys.stderr.isatty()):
        return PlainLines()
    return EditedLines(commands, history)


class PipedLines:
    """Every line is a message."""

    def next(self, begun: str = "") -> str | None:
        """The next line."""
        return sys.stdin.readline() or None


class PlainLines:
    """Lines from a terminal that cannot do more. A message in triple quotes may have several."""

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):  # no readline: lines come without editing
            import readline  # noqa: F401

    def next(self, begun: str = "") -> str | None:
        """The next line, or all from one with opening to one with closing quotes. Ctrl-C leaves a
        hint.
        """
        while True:
            try:
                text = self._line(PROMPT)
                while is_open(text):
                    text += f"\n{self._line(MORE)}"
                return unquoted(text)
            except EOFError:
                tell("")
                return None
            except KeyboardInterrupt:
                tell(f"\n{HINT}")

    def _line(self, prompt: str) -> str:
        if sys.stdout.isatty():
            return input(prompt)
        click.echo(prompt, nl=False, err=True)  # stdout belongs to the answers
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")


class EditedLines:
    """A terminal: editing, history, completion with Tab. What is pasted is one message, however
    many lines it has.
    """

    def __init__(self, commands: Sequence[str], history: Path | None) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.output import create_output

        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=MORE,
            key_bindings=_bindings(),
            completer=_completer(commands),
            complete_while_typing=False,
            enable_open_in_editor=True,
            enable_suspend=True,
            history=FileHistory(str(history)) if history else InMemoryHistory(),
            output=create_output(always_prefer_tty=True),  # stderr, where stdout is redirected
        )

    def next(self, begun: str = "") -> str | None:
        """The next message. Ctrl-C clears what is typed; where nothing is, it leaves a hint."""
        while True:
            try:
                return unquoted(self._session.prompt(default=begun))
            except EOFError:
                return None
            except KeyboardInterrupt:
                tell(HINT)


def is_open(text: str) -> bool:
    """Whether a message began with triple quotes that are not closed yet."""
    text = text.strip()
    return text.startswith(QUOTES) and (len(text) < 2 * len(QUOTES) or not text.endswith(QUOTES))


def unquoted(text: str) -> str:
    """A message without the triple quotes around it."""
    inner = text.strip()
    return (
        inner[len(QUOTES) : -len(QUOTES)].strip()
        if inner.startswith(QUOTES) and not is_open(inner)
        else text
    )


def _bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        if is_open(event.current_buffer.text):
            event.current_buffer.newline(copy_margin=False)
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    def clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys


def _completer(commands: Sequence[str]) -> Completer:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class SlashCommands(Completer):
        """Names of commands, and paths behind those that take one."""

        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterable[Completion]:
            typed = document.text_before_cursor
            if not typed.startswith("/") or "\n" in typed:
                return
            name, space, rest = typed[1:].partition(" ")
            if not space:
                yield from (
                    Completion(command, start_position=-len(name))
                    for command in commands
                    if command.startswith(name)
                )
            elif name in ("file", "save", "load"):
                path = Document(rest.rpartition(" ")[2])
                yield from PathCompleter(expanduser=True).get_completions(path, complete_event)

    return SlashCommands()
