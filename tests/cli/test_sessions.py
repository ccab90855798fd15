"""Chats that are saved and gone on with, with a tiny random model in this process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from namm_llm.cli.chat.sessions import CACHES_NBYTES, Session, saved_sessions, sessions_folder
from namm_llm.cli.main import main
from namm_llm.errors import UsageError
from namm_llm.runner import Runner

NOTE = " ".join(f"The vault {n} holds {n * 7919 % 1000} coins and a fox." for n in range(20))


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text(NOTE)
    return path


@pytest.fixture
def chat(tiny_folder: Path) -> Callable[..., Result]:
    def call(stdin: str, *options: str, new: bool = True) -> Result:
        model = ["--model", str(tiny_folder), "--max-tokens", "6"] if new else []
        return CliRunner().invoke(
            main, ["chat", *model, *options], input=stdin, prog_name="namm-llm"
        )

    return call


def answers(done: Result) -> list[dict[str, Any]]:
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


OPTIONS = [(), ("--policy", "h2o", "--budget", "0.5", "--interval", "32")]


@pytest.mark.parametrize("options", OPTIONS, ids=["full", "h2o"])
def test_a_chat_goes_on_without_reading_again(
    chat: Callable[..., Result], note: Path, options: tuple[str, ...]
) -> None:
    lines = ["Who signs?", "And then?", "Why?"]
    whole = answers(chat(f"/file {note}\n" + "\n".join(lines), "--json", *options))
    found = answers(
        chat(f"/file {note}\n", "--session", "one", "--json", *options)
    )  # the file waits for its question
    for line in lines:
        found += answers(chat(line, "-c", "--json", new=False))
    assert [answer["text"] for answer in found] == [answer["text"] for answer in whole]
    assert [answer["usage"] for answer in found] == [answer["usage"] for answer in whole]
    assert all(
        answer["usage"]["input_tokens"] - answer["usage"]["cached_tokens"] < 40 for answer in found
    )
    assert found[-1]["cache"] == whole[-1]["cache"]


AND = {"role": "user", "content": "And then?"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (Path.unlink, (), "its cache was not saved."),
        (cut, (), "damaged"),
        (
            lambda path: None,
            ("--policy", "h2o", "--budget", "0.5"),
            "other cache settings (full) than those of now (h2o, ",
        ),
    ],
    ids=["none", "cut", "other"],
)
def test_without_its_cache_a_chat_is_read_again(
    chat: Callable[..., Result],
    home: Path,
    tiny_folder: Path,
    damage: Callable[[Path], None],
    options: tuple[str, ...],
    message: str,
) -> None:
    chat("Who signs?\n", "--session", "one")
    said = json.loads((home / "sessions" / "one.json").read_text())["conversation"]["turns"]
    damage(home / "sessions" / "one.namm")
    done = chat("And then?\n", "-c", "--json", *options, new=False)
    assert done.stderr.splitlines()[0] == "Going on with one (2 messages; /show prints them)."
    assert done.stderr.splitlines()[1].startswith(
        "The conversation is read again with the next message: "
    )
    assert message in done.stderr
    assert answers(done)[0]["usage"]["cached_tokens"] == 0
    if not options:  # as who reads the same words for the first time
        messages = [{"role": turn["role"], "content": turn["text"]} for turn in said]
        assert (
            answers(done)[0]["text"]
            == Runner.load(tiny_folder).chat([*messages, AND], max_tokens=6).text
        )
    after = answers(chat("Why?\n", "-c", "--json", new=False))
    assert after[0]["usage"]["cached_tokens"] > 0


def test_what_was_set_is_kept_and_what_is_given_replaces_it(
    chat: Callable[..., Result], home: Path
) -> None:
    chat("/set max_tokens 3\n/system Be brief.\nHi\n", "--session", "one")
    assert answers(chat("And?\n", "-c", "--json", new=False))[0]["usage"]["output_tokens"] == 3
    done = answers(
        chat("And?\n", "-c", "--json", "--max-tokens", "2", "--system", "Be kind.", new=False)
    )
    assert done[0]["usage"]["output_tokens"] == 2
    record = json.loads((home / "sessions" / "one.json").read_text())["conversation"]
    assert (record["system"], record["params"]["max_tokens"], len(record["turns"])) == (
        "Be kind.",
        2,
        6,
    )


def test_the_message_is_saved_before_the_answer(
    chat: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[list[str]] = []

    def look(*arguments: object, **options: object) -> None:
        record = json.loads((home / "sessions" / "one.json").read_text())
        saved.append([turn["text"] for turn in record["conversation"]["turns"]])
        raise KeyboardInterrupt

    monkeypatch.setattr("namm_llm.cli.chat.controller.answer", look)
    assert chat("Hi\n", "--session", "one").exit_code == 130
    assert saved == [["Hi"]]
    assert json.loads((home / "sessions" / "one.json").read_text())["conversation"]["turns"] == []


def test_the_list(chat: Callable[..., Result]) -> None:
    assert chat("", "--list", new=False).stderr == "There is no saved chat.\n"
    chat("Hi\n", "--session", "older")
    (Session("x").path.parent / "broken.json").write_text("{")
    os.utime(saved_sessions()[0].name and Session("older").path, (1, 1))
    chat(
        "A question that is much too long to be shown here from its first to its last word.\n",
        "--session",
        "newer",
    )
    done = chat("", "--list", new=False)
    assert (done.exit_code, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(rows)[-1] == "older"
    assert rows["older"].endswith("   2 messages  Hi")
    assert rows["newer"].endswith(
        "   2 messages  A question that is much too long to be shown here from it..."
    )
    assert rows["broken"].endswith("(damaged)")
    assert time.strftime("%Y-%m-%d") in rows["newer"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("-c",), 2, "there is no saved chat to continue; begin one with: namm-llm chat."),
        (("-c", "--session", "one"), 2, "choose one of -c, --session NAME and --no-save."),
        (("--no-save", "-c"), 2, "choose one of -c, --session NAME and --no-save."),
        (
            ("--session", "../one"),
            2,
            "'../one' is no name for a session: use letters, digits, '-', '_' and '.'.",
        ),
        (
            ("--session", "held"),
            2,
            "the session held is open in another chat; leave that one, or take another "
            "with --session NAME.",
        ),
        (
            ("--session", "broken"),
            1,
            "broken.json is no saved chat, or a damaged one; move it away, or take another.",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_gone_on_with(
    chat: Callable[..., Result], home: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    held = Session("held")
    if "-c" not in options:
        (home / "sessions" / "broken.json").write_text('{"options": {}, "conv')
    done = chat("Hi\n", *options)
    held.close()
    assert (done.stdout, done.exit_code) == ("", code)
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(f"{message}\n")
    assert done.stderr.count("\n") == 1


def test_new_sessions_have_names_of_their_own() -> None:
    first, second = Session.new(), Session.new()
    assert first.name != second.name
    with pytest.raises(UsageError, match="is open in another chat"):
        Session(first.name)
    first.close()
    Session(first.name).close()
    second.close()
    assert list(sessions_folder().iterdir()) == []


def test_the_oldest_caches_go_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CACHES_NBYTES == 4_000_000_000
    monkeypatch.setattr("namm_llm.cli.chat.sessions.CACHES_NBYTES", 250)
    session = Session("mine")
    for age, name in enumerate(("newest", "middle", "oldest", "mine")):
        path = home / "sessions" / f"{name}.namm"
        path.write_bytes(b"0" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    session.drop_old_caches()
    assert sorted(path.stem for path in (home / "sessions").glob("*.namm")) == ["mine", "newest"]


def test_a_full_disk_ends_the_saving_and_not_the_chat(
    chat: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("namm_llm.cli.chat.sessions.replacing", full)
    done = chat("Hi\nAnd?\n", "--session", "one")
    assert done.exit_code == 0
    assert done.stderr.count("No space left on device") == 1
    assert len(done.stdout.splitlines()) >= 2
