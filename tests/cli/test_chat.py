"""The chat loop and its slash commands in a pipe, with a fake runner."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from namm_llm.cli.chat.commands import ALIASES, COMMANDS
from namm_llm.cli.chat.input import is_open, unquoted
from namm_llm.config import SamplingParams
from namm_llm.errors import ContextError
from tests.cli.conftest import FakeCommandLine


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HI = [said("user", "Hi"), said("assistant", "Hello.")]


def test_every_line_of_a_pipe_is_a_message(cli: FakeCommandLine) -> None:
    done = cli(["Hello.", "Fine."], "chat", "--system", "Be brief.", stdin="Hi\n\nHow are you?\n")
    assert (done.stdout, done.stderr, done.exit_code) == ("Hello.\nFine.\n", "", 0)
    start = [said("system", "Be brief."), said("user", "Hi")]
    assert cli.runner.asked == [
        start,
        [*start, said("assistant", "Hello."), said("user", "How are you?")],
    ]


def test_a_pipe_saves_nothing_unless_asked(
    cli: FakeCommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAMM_LLM_HOME", str(tmp_path / "home"))
    cli(["Hello."], "chat", stdin="Hi\n")
    assert not (tmp_path / "home").exists()
    done = cli(["Hello."], "chat", "--session", "mine", stdin="Hi\n")
    assert (done.stdout, done.stderr) == ("Hello.\n", "")
    path = tmp_path / "home" / "sessions" / "mine.json"
    assert [turn["text"] for turn in json.loads(path.read_text())["conversation"]["turns"]] == [
        "Hi",
        "Hello.",
    ]
    assert (path.stat().st_mode & 0o77, path.parent.stat().st_mode & 0o77) == (0, 0)


def test_json(cli: FakeCommandLine) -> None:
    done = cli(["Hello.", "Fine."], "chat", "--json", stdin="Hi\nHow are you?")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["Hello.", "Fine."]


def test_an_error_ends_a_pipe(cli: FakeCommandLine) -> None:
    done = cli([ContextError("too long"), "never"], "chat", stdin="Hi\nAgain\n")
    assert (done.stdout, done.stderr, done.exit_code) == ("", "Error: too long\n", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "/frobnicate now",
            "there is no command /frobnicate: /help lists them; // begins a message that "
            "starts with a slash.",
        ),
        (
            "/retyr",
            "there is no command /retyr (did you mean /retry?): /help lists them; // "
            "begins a message that starts with a slash.",
        ),
        ("/set heat 1", "sampling has no setting 'heat'; there are "),
        ("/set temperature", "/set temperature needs a value: /set NAME VALUE."),
        ("/set temperature hot", "temperature must be "),
        ("/set top_p 7", "top_p must be "),
        ("/stats maybe", "/stats takes on or off, not maybe"),
        ("/file", "/file needs the path of a document, or of several: "),
        ("/file -", "/file needs the path of a document, or of several: "),
        ("/file 'half", "/file 'half: a quotation mark has no partner."),
        ("/file missing.txt", "missing.txt"),
        ("/save", "/save needs the name of a file: /save talk.json."),
        ("/load", "/load needs a file that /save wrote: /load talk.json."),
        ("/load missing.json", "missing.json cannot be read: No such file or directory."),
    ],
)
def test_wrong_commands_are_one_line_and_are_not_sent_to_the_model(
    cli: FakeCommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli([], "chat", stdin=f"{line}\n")
    assert done.stderr.startswith(f"Error: {message}") or (
        line.endswith("missing.txt") and message in done.stderr
    )
    assert (done.stdout, done.stderr.count("\n"), cli.runner.asked, cli.runner.read_texts) == (
        "",
        1,
        [],
        [],
    )
    assert done.exit_code in (1, 2)


def test_exit_ends_and_clear_begins_anew(cli: FakeCommandLine) -> None:
    done = cli(["Hello.", "Hello."], "chat", stdin="Hi\n/clear\nHi\n/exit\nnever\n")
    assert (done.stdout, done.stderr) == ("Hello.\nHello.\n", "A new conversation.\n")
    assert cli.runner.asked == [[said("user", "Hi")]] * 2


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_other_names_do_the_same(cli: FakeCommandLine, alias: str) -> None:
    shown = [
        cli(["Hello.", "Again."], "chat", stdin=f"Hi\n/{name}\n")
        for name in (alias, ALIASES[alias])
    ]
    assert (shown[0].stdout, shown[0].stderr) == (shown[1].stdout, shown[1].stderr)


def test_a_doubled_slash_is_a_message(cli: FakeCommandLine) -> None:
    cli(["A folder."], "chat", stdin="//etc is what?\n")
    assert cli.runner.asked == [[said("user", "/etc is what?")]]


def test_files_are_read_at_once_and_go_before_the_next_message_only(
    cli: FakeCommandLine, handbook: str, tmp_path: Path
) -> None:
    other = tmp_path / "my notes.txt"
    other.write_text("The door is red.\n")
    lines = [
        f"/file {handbook}",
        f"/file {other}",
        f"/file {handbook} '{other}'",
        "What colour?",
        "Sure?",
    ]
    done = cli(["Green.", "Yes."], "chat", stdin="\n".join(lines))
    assert done.stderr == "".join(
        f"{name} is read (53 tokens) and goes before your next message.\n"
        for name in ("handbook.txt", "my notes.txt", "handbook.txt, my notes.txt")
    )
    both = (
        "Document: handbook.txt\n\nThe lamp is green.\n\nDocument: my notes.txt\n\nThe door is red."
    )
    read = [
        "The lamp is green.",
        "The lamp is green.\n\nThe door is red.",
        f"The lamp is green.\n\nThe door is red.\n\n{both}",
    ]
    assert cli.runner.read_texts == read
    first = said("user", f"{read[-1]}\n\nWhat colour?")
    assert cli.runner.asked == [
        [first],
        [first, said("assistant", "Green."), said("user", "Sure?")],
    ]


def test_a_file_whose_reading_was_stopped_is_left_out(cli: FakeCommandLine, handbook: str) -> None:
    done = cli(
        [], "chat", stdin=f"/file {handbook}\n", between=lambda: os.kill(os.getpid(), signal.SIGINT)
    )
    assert (done.stdout, done.stderr, done.exit_code) == ("", "\nInterrupted.\n", 130)


def test_set_changes_how_answers_are_sampled(cli: FakeCommandLine) -> None:
    done = cli(
        ["Hi."], "chat", stdin='/set temperature 0.7\n/set stop ["END"]\n/set seed 3\nHi\n/set\n'
    )
    assert done.stderr.startswith('temperature is 0.7.\nstop is ["END"].\nseed is 3.\n')
    assert "temperature         0.7\n" in done.stderr
    assert cli.runner.params == [
        SamplingParams(max_tokens=1024, temperature=0.7, stop=("END",), stop_loops=True, seed=3)
    ]


def test_help_names_every_command(cli: FakeCommandLine) -> None:
    shown = cli([], "chat", stdin="/help\n").stderr
    assert re.findall(r"^/(\w+)", shown, re.MULTILINE) == list(COMMANDS)
    assert all(f"/{alias}" in shown for alias in ALIASES if len(alias) > 1)


def test_system_belongs_to_every_message(cli: FakeCommandLine) -> None:
    done = cli(
        ["Hello.", "Hello.", "Fine."],
        "chat",
        stdin="/system Be brief.\nHi\n/system\n/clear\nHi\n/system Be kind.\nAnd?",
    )
    assert done.stderr.splitlines() == [
        "System message set.",
        "No system message. What was said so far is read again with the next message.",
        "A new conversation.",
        "System message set. What was said so far is read again with the next message.",
    ]
    brief, kind = said("system", "Be brief."), said("system", "Be kind.")
    assert cli.runner.asked == [[brief, HI[0]], [HI[0]], [kind, *HI, said("user", "And?")]]


def test_retry_asks_again(cli: FakeCommandLine) -> None:
    done = cli(
        ["Hello.", "Hey.", "Fine."],
        "chat",
        stdin="/retry\nHi\n/retry\n/set temperature 1\nHow are you?\n",
    )
    assert done.stderr.splitlines()[0] == "There is no message to answer again."
    assert "At temperature 0 the same answer comes again" in done.stderr
    assert cli.runner.asked == [
        HI[:1],
        HI[:1],
        [HI[0], said("assistant", "Hey."), said("user", "How are you?")],
    ]


def test_undo_takes_messages_back_and_then_files(cli: FakeCommandLine, handbook: str) -> None:
    lines = ["/undo", "Hi", f"/file {handbook}", "What colour?", "/undo", "/undo", "/undo", "Hi"]
    done = cli(["Hello.", "Green.", "Hello."], "chat", stdin="\n".join(lines))
    assert done.stderr.splitlines() == [
        "There is nothing to take back.",
        "handbook.txt is read (53 tokens) and goes before your next message.",
        "Taken back: What colour? (handbook.txt stays; /undo again removes it)",
        "Taken back: the file handbook.txt",
        "Taken back: Hi",
    ]
    assert cli.runner.asked[-1] == HI[:1]


def test_show_memory_and_model(cli: FakeCommandLine, handbook: str) -> None:
    lines = [
        "/show",
        "/memory",
        "/model",
        "/system Be brief.",
        f"/file {handbook}",
        "Hi",
        "/show",
        "/memory",
    ]
    shown = cli(["Hello."], "chat", stdin="\n".join(lines)).stderr
    model = "fake (float32)\n34 MB of weights, 4 096 positions\nCache: full\n"
    assert shown.startswith(f"Nothing was said yet.\nNothing is read yet.\n{model}")
    assert (
        "System: Be brief.\n\nUser: [handbook.txt, 18 characters]\nHi\n\nAssistant: Hello.\n"
        in shown
    )
    memory = (
        "Read: 2 048 of 4 096 tokens\nKept: 512 tokens for each head (25%), 34 MB (all of "
        "them: 136 MB)\nChosen by: h2o, in 4 eviction steps\n"
    )
    assert shown.endswith(memory)


def test_stats(cli: FakeCommandLine) -> None:
    done = cli(["1", "2", "3"], "chat", stdin="/stats\nHi\n/stats off\nHi\n/stats on\nHi\n")
    line = (
        "142 tok · 18.3 tok/s · ttft 0.41 s · prompt 1 203 (1 150 cached) · KV 512/2 048 "
        "kept (−1 536 evicted) 34 MB"
    )
    assert done.stderr.splitlines() == [
        "Statistics on.",
        line,
        "Statistics off.",
        "Statistics on.",
        line,
    ]


def test_a_saved_conversation_is_loaded(
    cli: FakeCommandLine, handbook: str, tmp_path: Path
) -> None:
    path = tmp_path / "talk.json"
    cli(
        ["Hello."],
        "chat",
        "--system",
        "Be brief.",
        stdin=f"/set seed 3\nHi\n/file {handbook}\n/save {path}\n",
    )
    done = cli(["Green."], "chat", stdin=f"/load {path}\nWhat colour?\n")
    assert done.stderr == "2 messages; read with the next one.\n"
    assert cli.runner.asked == [
        [said("system", "Be brief."), *HI, said("user", "The lamp is green.\n\nWhat colour?")]
    ]
    assert cli.runner.params == [SamplingParams(max_tokens=1024, stop_loops=True, seed=3)]
    assert (
        cli([], "chat", stdin=f"/save {path}\n").stderr
        == f"Error: {path} exists already; /save takes a new name.\n"
    )


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-20], lambda text: "{}", lambda text: text.replace('"turns"', '"words"')],
)
def test_a_damaged_conversation_is_refused(cli: FakeCommandLine, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "talk.json"
    cli(["Hello."], "chat", stdin=f"Hi\n/save {path}\n")
    path.write_text(damage(path.read_text()))
    done = cli([], "chat", stdin=f"/load {path}\n")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "talk.json is " in done.stderr
    assert "damaged" in done.stderr


def test_triple_quotes_hold_several_lines() -> None:
    assert [is_open(text) for text in ('"""', '"""one', '"""one\ntwo"""', 'one"""', '""""""')] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert unquoted('"""one\ntwo\n"""') == "one\ntwo"
    assert unquoted("one") == "one"
