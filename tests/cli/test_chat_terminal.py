"""The chat as a person meets it: a real process in a real terminal, with a tiny random model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pexpect = pytest.importorskip("pexpect")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
SECONDS = 120
READY, TAKEN = (
    "\x1b[?2004h",
    "\x1b[?2004l",
)  # the editor switches bracketed paste on when it waits, and off when it has a line
COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


class Terminal:
    """A chat in a terminal with a line editor, or in one without (`dumb`)."""

    def __init__(self, folder: Path, model: Path, *options: str, dumb: bool = False) -> None:
        arguments = ["-m", "namm_llm", "chat", "--model", str(model), *options]
        environment = {
            **os.environ,
            "TERM": "dumb" if dumb else "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        self.dumb = dumb
        self.child = pexpect.spawn(
            sys.executable,
            arguments,
            timeout=SECONDS,
            encoding="utf-8",
            cwd=folder,
            env=environment,
            dimensions=(50, 200),
        )
        self.shown = ""
        self.see("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
        self.ready()

    def ready(self) -> None:
        self.see(">>> " if self.dumb else READY)

    def see(self, text: str) -> None:
        self.child.expect_exact(text)
        self.shown += self.child.before + self.child.after

    def see_match(self, pattern: str) -> str:
        self.child.expect(pattern)
        self.shown += self.child.before + self.child.after
        return str(self.child.match[0])

    def type(self, text: str) -> None:
        """A line with Enter; it is seen to be taken."""
        self.child.send(f"{text}\r")
        if not self.dumb:
            self.see(TAKEN)

    def command(self, line: str, *answers: str) -> None:
        """A line and what must be said to it, in this order, before the next prompt."""
        self.type(line)
        for answer in answers:
            self.see(answer)
        self.ready()

    def leave(self) -> None:
        self.child.sendeof()
        self.child.expect(pexpect.EOF)
        self.shown += self.child.before
        self.child.close()
        assert self.child.exitstatus == 0


@pytest.mark.slow
def test_every_command_and_key_until_a_kill(tiny_folder: Path, tmp_path: Path, home: Path) -> None:
    (tmp_path / "note.txt").write_text("The lamp is green.\n")
    chat = Terminal(tmp_path, tiny_folder, "--max-tokens", "4")
    chat.command("/help", "/file PATH...", "Ctrl-D")
    chat.command("/frobnicate", "Error: there is no command /frobnicate")
    chat.command("/undo", "There is nothing to take back.")
    chat.command("/retry", "There is no message to answer again.")
    chat.command("/model", str(tiny_folder), "of weights, 4 096 positions")
    chat.command("/memory", "Nothing is read yet.")
    chat.command("/system Be brief.", "System message set.")
    chat.command("/set seed 7", "seed is 7.")
    chat.command("/set", "max_tokens          4")
    chat.command("/file note.txt", "note.txt is read (", "and goes before your next message.")
    chat.command("/stats", "Statistics on.")
    chat.command("What colour?", "4 tok · ", " cached) · KV ")
    chat.command("/memory", "Read: ", "(100%)", "Chosen by: full")
    chat.command("/retry", "At temperature 0 the same answer comes again", "4 tok · ")
    chat.command("/stats off", "Statistics off.")
    chat.command("//etc is what?")
    chat.command(
        "/show",
        "System: Be brief.",
        "[note.txt, 18 characters]",
        "What colour?",
        "User: /etc is what?",
        "Assistant: ",
    )
    chat.command("/undo", "Taken back: /etc is what?")
    chat.command("/save talk.json", "Saved as talk.json.")
    chat.command("/save talk.json", "Error: talk.json exists already")
    chat.command("/clear", "A new conversation; the one before is kept as ")
    chat.command("/load talk.json", "2 messages; read with the next one.")
    paste(chat)
    stop_an_answer(chat)
    keys_at_the_prompt(chat)
    assert not COLOUR.search(chat.shown)
    assert len(list((home / "sessions").glob("*.json"))) == 2
    kill_and_go_on(chat, tmp_path, tiny_folder)


def test_a_terminal_without_an_editor(tiny_folder: Path, tmp_path: Path, home: Path) -> None:
    chat = Terminal(tmp_path, tiny_folder, "--max-tokens", "4", "--no-save", dumb=True)
    chat.command("/frobnicate", "Error: there is no command /frobnicate")
    paste(chat)
    stop_an_answer(chat)
    keys_at_the_prompt(chat)
    chat.leave()
    assert "\x1b" not in chat.shown
    assert list((home / "sessions").glob("*.json")) == []


def paste(chat: Terminal) -> None:
    if chat.dumb:
        chat.child.send('"""one line\r')
        chat.see("... ")
        chat.child.send("two lines\r")
        chat.see("... ")
        chat.command('three lines"""')
    else:
        chat.command("\x1b[200~one line\ntwo lines\nthree lines\x1b[201~")
    chat.command("/show", "User: one line\r\ntwo lines\r\nthree lines\r\n\r\nAssistant: ")
    if not chat.dumb:
        edit(chat)


def edit(chat: Terminal) -> None:
    chat.command("/edit")  # the message is at the prompt again, to be changed
    chat.command("?")
    chat.command("/show", "User: one line\r\ntwo lines\r\nthree lines?\r\n")


def stop_an_answer(chat: Terminal) -> None:
    chat.command("/set max_tokens 3000", "max_tokens is 3000.")
    chat.type("Talk.")
    chat.see_match(
        r"(?s).{150}" if chat.dumb else r"(?s).{50}"
    )  # the answer is well under way (a plain terminal echoes the line)
    chat.child.sendintr()
    chat.see("(stopped; /undo takes it back)")
    chat.ready()
    chat.command("/show", "User: Talk.\r\n\r\nAssistant: ")
    chat.command("/set max_tokens 3", "max_tokens is 3.")


def keys_at_the_prompt(chat: Terminal) -> None:
    chat.child.sendintr()
    chat.see("(Ctrl-D or /exit leaves)")
    chat.ready()
    if not chat.dumb:
        chat.child.send("never said")
        chat.see_match("s[^a-z]*a[^a-z]*i[^a-z]*d")  # drawn letter by letter
        chat.child.sendintr()
        chat.command("/model", "of weights")  # alone in its line
        chat.child.send("first\x1b\rsecond\r")  # Alt-Enter
        chat.see(TAKEN)
        chat.ready()
        chat.command("/show", "User: first\r\nsecond\r\n")


def kill_and_go_on(chat: Terminal, folder: Path, model: Path) -> None:
    chat.command("/set max_tokens 3000", "max_tokens is 3000.")
    chat.type("Go on.")
    chat.see_match(r"(?s).{50}")
    chat.child.kill(signal.SIGKILL)
    chat.child.expect(pexpect.EOF)

    again = Terminal(folder, model, "-c", "--max-tokens", "5", "--stats")
    assert "read again" not in again.shown
    assert "The last message has no answer yet: /retry answers it." in again.shown
    again.type("/retry")
    line = again.see_match(r"5 tok · .*KV")
    again.ready()
    prompt, cached = map(int, re.findall(r"prompt (\d+) \((\d+) cached\)", line)[0])
    assert prompt - cached < 40  # all but the last message came from the cache's file
    again.command(
        "/show", "User: one line", "Assistant: ", "User: first", "User: Go on.", "Assistant: "
    )
    again.leave()
    assert "Saved as " in again.shown


def piped(
    folder: Path, text: str, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "namm_llm", "chat", *options]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": SECONDS}
    return subprocess.run(
        arguments,
        input=text,
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
        **settings,
    )


def test_a_pipe_in_and_out_and_one_that_closes(
    tiny_folder: Path, tmp_path: Path, home: Path
) -> None:
    done = piped(
        tmp_path,
        "Hi\nAnd?\n",
        "--model",
        str(tiny_folder),
        "--max-tokens",
        "4",
        "--json",
        TERM="xterm",
    )
    assert (done.stderr, done.returncode) == ("", 0)
    first, second = map(json.loads, done.stdout.splitlines())
    assert second["usage"]["cached_tokens"] >= first["usage"]["input_tokens"]
    assert list(home.iterdir()) == []
