"""A conversation and its slash commands. Knows no model and no terminal; what a command has to say goes to stderr."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from namm_llm.cli.inputs import document_text
from namm_llm.errors import UsageError

if TYPE_CHECKING:
    from namm_llm.runner.sampling import SamplingParams


class Conversation:
    """Turns, sampling parameters and switches, changed by the lines that a person types."""

    def __init__(self, params: SamplingParams, system: str = "", stats: bool = False) -> None:
        self.params = params
        self.system = system
        self.stats = stats
        self.over = False
        self._turns: list[dict[str, str]] = []
        self.file = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return first + self._turns

    def take(self, line: str) -> bool:
        """Obeys a slash command, or adds a message; true if an answer is due. A command is never sent to the model."""
        line = line.strip()
        if line.startswith("/") and not line.startswith("//"):
            self._obey(line)
            return False
        if not line:
            return False
        text = line.removeprefix("/") if line.startswith("//") else line
        self._turns.append({"role": "user", "content": f"{self.file}\n\n{text}" if self.file else text})
        return True

    def reply(self, text: str) -> None:
        self._turns.append({"role": "assistant", "content": text})
        self.file = ""

    def forget(self) -> None:
        self._turns, self.file = [], ""

    def withdraw(self) -> None:
        """Takes back a message that got no answer; a file stays for the next one."""
        if self._turns and self._turns[-1]["role"] == "user":
            self._turns.pop()

    def _obey(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        command = COMMANDS.get(ALIASES.get(name, name))
        if command is None:
            raise UsageError(f"there is no command /{name}: /help lists them; // begins a message that starts with a slash")
        click.echo(command.run(self, rest.strip()), err=True)


@dataclass(frozen=True)
class Command:
    """A slash command; `run` gets what stands behind its name and returns what to say."""

    usage: str
    meaning: str
    run: Callable[[Conversation, str], str]


def _help(conversation: Conversation, rest: str) -> str:
    rows = [(f"/{name} {command.usage}", command.meaning) for name, command in COMMANDS.items()]
    return "\n".join(f"{usage:<17}{meaning}" for usage, meaning in [*rows, ("//...", "a message that starts with a slash")])


def _exit(conversation: Conversation, rest: str) -> str:
    conversation.over = True
    return "Bye."


def _clear(conversation: Conversation, rest: str) -> str:
    conversation.forget()
    return "Forgotten."


def _system(conversation: Conversation, text: str) -> str:
    conversation.system = text
    return "System message set." if text else "No system message."


def _file(conversation: Conversation, path: str) -> str:
    if not path:
        raise UsageError("/file needs the path of a text file")
    conversation.file = document_text(path)
    return f"{path} goes before your next message ({len(conversation.file):,} characters)."


def _set(conversation: Conversation, rest: str) -> str:
    name, _, value = rest.partition(" ")
    if not name:
        values = dataclasses.asdict(conversation.params)
        return "\n".join(f"{name:<20}{json.dumps(value)}" for name, value in values.items())
    if not value:
        raise UsageError(f"/set {name} needs a value: /set NAME VALUE")
    conversation.params = conversation.params.override({name: parsed(value)})
    return f"{name} is {value}."


def _stats(conversation: Conversation, rest: str) -> str:
    conversation.stats = not conversation.stats
    return f"Statistics {'on' if conversation.stats else 'off'}."


def parsed(value: str) -> object:
    """A JSON value; what is not JSON is a string."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


COMMANDS = {
    "help": Command("", "this list", _help),
    "exit": Command("", "leave (also /bye, /quit and Ctrl-D)", _exit),
    "clear": Command("", "forget what was said, and the file", _clear),
    "system": Command("TEXT", "set the system message; without TEXT remove it", _system),
    "file": Command("PATH", "put a text file before your next message", _file),
    "set": Command("NAME VALUE", "change how answers are sampled; alone it shows the values", _set),
    "stats": Command("", "statistics after each answer, on or off", _stats),
}
ALIASES = {"?": "help", "bye": "exit", "quit": "exit"}
