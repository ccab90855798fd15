"""`namm-llm chat`: options and the loop. What can be typed is in `commands.py`, how it is typed in
`input.py`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from namm_llm.cli.chat.conversation import Conversation, beginning
from namm_llm.cli.options import Settings, command
from namm_llm.cli.output import counted, tell
from namm_llm.errors import NammError, UsageError

if TYPE_CHECKING:
    from namm_llm.cli.chat.sessions import Session


@command("load", "run", "cache", "sampling", max_tokens=1024, stop_loops=True)
@click.option("-s", "--system", metavar="TEXT", help="System message.")
@click.option(
    "-c", "--continue", "continues", is_flag=True, help="Go on with the chat that was saved last."
)
@click.option(
    "--session", "name", metavar="NAME", help="Go on with the chat of this name, or begin it."
)
@click.option("--no-save", is_flag=True, help="Save nothing of this chat.")
@click.option("--list", "lists", is_flag=True, help="List the saved chats and leave.")
def chat(
    system: str | None,
    continues: bool,
    name: str | None,
    no_save: bool,
    lists: bool,
    settings: Settings,
) -> None:
    """Chat with a model. /help lists what else can be typed.

    A chat is saved after every message, in your data folder or the folder NAMM_LLM_HOME. With -c it
    goes on with its model and options, and what was said is not read again. Options that you give
    then replace the saved ones.

    Without a terminal, every line of standard input is a message, stdout has the answers alone, and
    nothing is saved unless -c or --session asks for it.
    """
    if lists:
        _list()
        return
    if sum((continues, name is not None, no_save)) > 1:
        raise UsageError("choose one of -c, --session NAME and --no-save.")
    terminal = sys.stdin.isatty()
    session = _session(continues, name) if continues or name or (terminal and not no_save) else None
    conversation, settings = _begun(session, system, settings)
    _talk(conversation, settings, session, terminal)


def _session(continues: bool, name: str | None) -> Session:
    from namm_llm.cli.chat.sessions import Session

    if continues:
        return Session.latest()
    return Session(name) if name else Session.new()


def _begun(
    session: Session | None, system: str | None, settings: Settings
) -> tuple[Conversation, Settings]:
    """The conversation to go on with, or a new one, and the options of the chat."""
    record = session.load() if session else None
    if session is None or record is None:
        return Conversation(settings.params(), system or ""), settings
    from namm_llm.cli.chat.commands import conversation_of

    settings = replace(settings, runner={**record.get("options", {}), **settings.runner})
    conversation = conversation_of(record, Conversation(settings.params()), session.path)
    conversation.params = conversation.params.override(settings.sampling)
    conversation.system = conversation.system if system is None else system
    count = counted(len(conversation.turns), "message")
    tell(f"Going on with {session.name} ({count}; /show prints them).")
    if conversation.is_unanswered:
        tell("The last message has no answer yet: /retry answers it.")
    return conversation, settings


def _talk(
    conversation: Conversation, settings: Settings, session: Session | None, terminal: bool
) -> None:
    from namm_llm.cli.chat.commands import COMMANDS, take
    from namm_llm.cli.chat.controller import Chat
    from namm_llm.cli.chat.input import lines_of
    from namm_llm.cli.chat.sessions import history_path

    talk = Chat(conversation, settings, session, in_pipe=not terminal)
    if terminal:
        tell(f"Loading {settings.model} ...")
    talk.begin(settings.load())
    lines = lines_of([*COMMANDS], history_path() if session else None)
    if terminal:
        tell("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
    try:
        while not talk.over:
            begun, talk.begun = talk.begun, ""
            if (line := lines.next(begun)) is None:
                break
            try:
                take(talk, line)
            except (NammError, KeyboardInterrupt) as error:
                if not terminal:
                    raise
                tell(f"Error: {error}" if isinstance(error, NammError) else "(stopped)")
    finally:
        talk.leave()


def _list() -> None:
    from namm_llm.cli.chat.sessions import saved_sessions

    found = saved_sessions()
    if not found:
        tell("There is no saved chat.")
    width = max((len(listed.name) for listed in found), default=0)
    for listed in found:
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(listed.saved_at))
        turns = listed.record["conversation"]["turns"] if listed.record else []
        said = [turn["text"] for turn in turns if turn["role"] == "user"]
        first = beginning(said[0]) if said else ("" if listed.record else "(damaged)")
        click.echo(f"{listed.name:<{width}}  {date}  {len(turns):>4} messages  {first}")
