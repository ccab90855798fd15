"""The slash commands of a chat. What a command has to say goes to stderr."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from namm_llm.cli.chat.controller import Chat
from namm_llm.cli.chat.conversation import Conversation, File, beginning
from namm_llm.cli.chat.sessions import read_record, write_record
from namm_llm.cli.inputs import document_file
from namm_llm.cli.output import counted, tell
from namm_llm.errors import DocumentError, UsageError


def take(chat: Chat, line: str) -> None:
    """Obey a slash command, or say a message to the model. A command is never sent to the model."""
    line = line.strip()
    name, _, rest = line.removeprefix("/").partition(" ")
    if not line:
        return
    if line.startswith("//"):
        chat.say(line.removeprefix("/"))
    elif line.startswith("/") and (
        named(name) or "\n" not in line
    ):  # a block that was pasted may begin with a path
        obey(chat, name, rest.strip())
    else:
        chat.say(line)


def named(name: str) -> Command | None:
    """The command of this name or other name."""
    return COMMANDS.get(ALIASES.get(name, name))


def obey(chat: Chat, name: str, rest: str) -> None:
    """Do what a command says, and print its words."""
    command = named(name)
    if command is None:
        near = get_close_matches(name, [*COMMANDS, *ALIASES], 1)
        hint = f" (did you mean /{near[0]}?)" if near else ""
        raise UsageError(
            f"there is no command /{name}{hint}: /help lists them; // begins a message "
            "that starts with a slash."
        )
    said = command.run(chat, rest)
    if said:
        tell(said)


@dataclass(frozen=True)
class Command:
    """A slash command; `run` gets what stands behind its name and returns what to say."""

    usage: str
    meaning: str
    run: Callable[[Chat, str], str]


def _help(chat: Chat, rest: str) -> str:
    others = {
        name: [other for other, meant in ALIASES.items() if meant == name and len(other) > 1]
        for name in COMMANDS
    }
    rows = [
        (
            f"/{name} {command.usage}",
            command.meaning + (f" (also /{', /'.join(others[name])})" if others[name] else ""),
        )
        for name, command in COMMANDS.items()
    ]
    return "\n".join(f"{usage:<20}{meaning}" for usage, meaning in [*rows, *KEYS])


def _exit(chat: Chat, rest: str) -> str:
    chat.over = True
    return ""


def _clear(chat: Chat, rest: str) -> str:
    before = chat.start_over()
    return (
        f"A new conversation; the one before is kept as {before}."
        if before
        else "A new conversation."
    )


def _system(chat: Chat, text: str) -> str:
    chat.conversation.system = text
    chat.save()
    again = (
        " What was said so far is read again with the next message."
        if chat.conversation.turns or chat.conversation.files
        else ""
    )
    return ("System message set." if text else "No system message.") + again


def _file(chat: Chat, rest: str) -> str:
    from namm_llm.documents import join_texts

    files = [document_file(path) for path in _paths(rest)]
    return chat.read(File(", ".join(file.name for file in files), join_texts(files).strip()))


def _paths(rest: str) -> list[str]:
    """Paths behind /file: one that may hold spaces, or several, quoted where needed."""
    whole = Path(rest).expanduser()
    if rest and whole.exists():
        return [str(whole)]
    try:
        paths = [
            str(Path(path).expanduser()) if path != "-" else path
            for path in shlex.split(rest, posix=os.name == "posix")
        ]
    except ValueError as error:
        raise UsageError(f"/file {rest}: a quotation mark has no partner.") from error
    if not paths or "-" in paths:
        raise UsageError(
            "/file needs the path of a document, or of several: /file notes.txt 'my report.pdf'."
        )
    return paths


def _set(chat: Chat, rest: str) -> str:
    name, _, value = rest.partition(" ")
    if not name:
        return "\n".join(
            f"{name:<20}{json.dumps(value)}" for name, value in chat.describe_params().items()
        )
    if not value:
        raise UsageError(f"/set {name} needs a value: /set NAME VALUE.")
    params = chat.conversation.params.override({name: parsed(value)})
    chat.conversation.params = params
    needs_chance = name in ("top_k", "top_p", "min_p", "seed") and params.temperature == 0
    unused = " It changes nothing at temperature 0: /set temperature 0.8" if needs_chance else ""
    return f"{name} is {value}.{unused}"


def parsed(value: str) -> object:
    """A JSON value; what is not JSON is a string."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _show(chat: Chat, rest: str) -> str:
    conversation = chat.conversation
    system = [f"System: {conversation.system}"] if conversation.system else []
    waiting = [
        f"[{file.name}, {len(file.text):,} characters, before your next message]"
        for file in conversation.files
    ]
    return (
        "\n\n".join([*system, *map(str, conversation.turns), *waiting]) or "Nothing was said yet."
    )


def _stats(chat: Chat, rest: str) -> str:
    if rest not in ("", "on", "off"):
        raise UsageError(f"/stats takes on or off, not {rest}")
    chat.shows_stats = rest == "on" if rest else not chat.shows_stats
    return f"Statistics {'on' if chat.shows_stats else 'off'}."


def _memory(chat: Chat, rest: str) -> str:
    return chat.describe_cache()


def _model(chat: Chat, rest: str) -> str:
    return chat.describe_model()


def _retry(chat: Chat, rest: str) -> str:
    if (
        chat.conversation.params.temperature == 0
        and chat.conversation.turns
        and not chat.conversation.is_unanswered
    ):
        tell("At temperature 0 the same answer comes again; /set temperature 0.8 lets it vary.")
    return "" if chat.retry() else "There is no message to answer again."


def _undo(chat: Chat, rest: str) -> str:
    conversation = chat.conversation
    if conversation.files:
        said = f"Taken back: the file {conversation.files.pop().name}"
    elif (text := conversation.undo()) is None:
        return "There is nothing to take back."
    else:
        said = f"Taken back: {beginning(text)}"
        if conversation.files:
            names = ", ".join(file.name for file in conversation.files)
            said += f" ({names} stays; /undo again removes it)"
    chat.save()
    return said


def _edit(chat: Chat, rest: str) -> str:
    text = chat.conversation.undo()
    if text is None:
        return "There is no message to change."
    chat.save()
    chat.begun = text
    return ""


def _save(chat: Chat, rest: str) -> str:
    if not rest:
        raise UsageError("/save needs the name of a file: /save talk.json.")
    path = Path(rest).expanduser()
    if path.exists():
        raise UsageError(f"{path} exists already; /save takes a new name.")
    write_record(path, chat.record())
    return f"Saved as {path}."


def _load(chat: Chat, rest: str) -> str:
    if not rest:
        raise UsageError("/load needs a file that /save wrote: /load talk.json.")
    path = Path(rest).expanduser()
    conversation = conversation_of(read_record(path), chat.conversation, path)
    chat.start_over(conversation)
    return f"{counted(len(conversation.turns), 'message')}; read with the next one."


def conversation_of(record: dict[str, object], now: Conversation, path: Path) -> Conversation:
    """The conversation in a file. DocumentError if it is damaged."""
    try:
        values = record["conversation"]
        assert isinstance(values, dict)
        return Conversation.from_dict(values, now.params)
    except (KeyError, TypeError, AssertionError, UsageError) as error:
        raise DocumentError(
            f"{path} is a damaged chat ({error}); move it away, or take another."
        ) from error


COMMANDS = {
    "help": Command("", "this list", _help),
    "exit": Command("", "leave", _exit),
    "clear": Command("", "begin a new conversation; the one before stays saved", _clear),
    "system": Command("TEXT", "set the system message; without TEXT remove it", _system),
    "file": Command("PATH...", "read documents; they go before your next message", _file),
    "set": Command("NAME VALUE", "change how answers are sampled; alone it shows the values", _set),
    "show": Command("", "what was said so far", _show),
    "retry": Command("", "another answer to your last message", _retry),
    "undo": Command("", "take back your last message and its answer", _undo),
    "edit": Command("", "the same, and change the message", _edit),
    "memory": Command("", "what the cache keeps of the conversation", _memory),
    "model": Command("", "which model this is", _model),
    "stats": Command("on|off", "statistics after each answer", _stats),
    "save": Command("FILE", "write the conversation to a file", _save),
    "load": Command("FILE", "go on with a conversation that /save wrote", _load),
}
ALIASES = {
    "?": "help",
    "bye": "exit",
    "quit": "exit",
    "q": "exit",
    "new": "clear",
    "reset": "clear",
    "history": "show",
    "regenerate": "retry",
    "cache": "memory",
    "tokens": "memory",
}
KEYS = (
    ("//...", "a message that starts with a slash"),
    ('"""', "begins and ends a message of several lines; so does Alt-Enter for each line"),
    ("Ctrl-C", "stops an answer, which stays as far as it came; at the prompt it clears the line"),
    ("Ctrl-D", "leaves"),
)
