"""`namm-llm documents`: what is kept, as a table, as columns, as JSON; what is broken is said and
disturbs nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_llm.cli.main import main
from namm_llm.config.header import config_to_dict
from namm_llm.documents import MemoryStore
from namm_llm.runner import Runner

TEXT = "The lamp is green. The door is red."


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("documents", *arguments), prog_name="namm-llm")


@pytest.fixture
def store(home: Path, tiny_folder: Path) -> MemoryStore:
    """Two memories: `my notes`, and one without a name that was used before it, long ago."""
    store = MemoryStore()
    runner = Runner.load(tiny_folder, budget=0.5, interval=8)
    for text, name in ((TEXT * 2, None), (TEXT, "my notes")):
        id = store.id_of(text, runner.fingerprint, config_to_dict(runner.config))
        store.put(id, runner.read(text), name=name, extra={"sources": f"{len(text)}.txt"})
        os.utime(store.path_of(id), (1e9 + (name is not None), 1e9 + (name is not None)))
    return store


def test_an_empty_store(home: Path) -> None:
    done = call("list")
    assert (done.stdout, done.exit_code) == ("", 0)
    assert done.stderr == f"0 memories, 0 B of 20 GB, in {home / 'memories'}\n"
    assert list(home.iterdir()) == []


def test_list_has_columns_in_a_pipe(store: MemoryStore, tiny_folder: Path) -> None:
    done = call("list")
    first, second = (line.split("\t") for line in done.stdout.splitlines())
    entry, other = store.entries()
    assert entry.header is not None
    assert first == [
        "my notes",
        entry.id,
        str(entry.header.seen_tokens),
        str(entry.header.stored_tokens),
        str(entry.nbytes),
        first[5],
        str(tiny_folder.resolve()),
        "replay, budget 0.5, model",
        "35.txt",
        "",
    ]
    assert first[5].startswith("2001-09-0")
    assert second[:2] == ["", other.id]
    assert done.stderr.startswith("2 memories, ")


def test_list_as_json(store: MemoryStore) -> None:
    first, second = map(json.loads, call("list", "--json").stdout.splitlines())
    assert (first["names"], first["sources"], first["settings"]["budget"]) == (
        ["my notes"],
        "35.txt",
        0.5,
    )
    assert second["names"] == []
    assert first == json.loads(call("show", "my notes", "--json").stdout)


def test_show(store: MemoryStore) -> None:
    entry = store.entry("my notes")
    shown = dict(
        line.split("  ", 1) for line in call("show", "MY notes").stdout.splitlines() if "  " in line
    )
    shown = {name: value.strip() for name, value in shown.items()}
    assert (shown["id"], shown["names"], shown["path"], shown["sources"]) == (
        entry.id,
        "my notes",
        str(entry.path),
        "35.txt",
    )
    assert call("show", entry.id[:5]).stdout == call("show", "my notes").stdout


def test_forget_one_of_two_names_then_all(store: MemoryStore) -> None:
    entry, other = store.entries()
    store.name(entry.id, "also")
    done = call("forget", "also", other.id)
    assert (done.stdout, done.exit_code) == ("", 0)
    assert done.stderr.startswith("Forgot also; the memory stays as my notes.\nForgot ")
    assert [kept.names for kept in store.entries()] == [("my notes",)]
    assert call("forget", "my notes").exit_code == 0
    assert store.entries() == []
    again = call("forget", "my notes")
    assert (again.exit_code, again.stderr) == (
        1,
        "Error: there is no memory 'my notes'; `namm-llm documents list` shows all.\n",
    )


def test_broken_files_are_reported_and_the_rest_is_listed(store: MemoryStore) -> None:
    broken = store.entries()[1]
    broken.path.write_bytes(b"nothing")
    done = call("list")
    assert done.exit_code == 0
    lines = {line.split("\t")[1]: line.split("\t")[-1] for line in done.stdout.splitlines()}
    assert set(lines) == {entry.id for entry in store.entries()}
    assert "is damaged or cut short" in lines[broken.id]
    assert f"Warning: {broken.id}: " in done.stderr
    assert "problem" in json.loads(call("show", broken.id, "--json").stdout)
    assert "is damaged or cut short" in call("show", broken.id).stdout
    assert call("forget", broken.id).stderr == f"Forgot {broken.id} (7 B).\n"


def test_a_bad_limit_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMM_LLM_STORE_SIZE", "lots")
    done = call("list")
    assert (done.exit_code, done.stderr) == (
        2,
        "Error: NAMM_LLM_STORE_SIZE must be a size such as 20GB, not 'lots'.\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_list_is_a_table_on_a_terminal(store: MemoryStore) -> None:
    import pexpect

    store.entries()[1].path.write_bytes(b"nothing")  # which makes it the newest
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    arguments = ["-m", "namm_llm", "documents", "list"]
    terminal = pexpect.spawn(
        sys.executable,
        arguments,
        timeout=120,
        encoding="utf-8",
        env=environment,
        dimensions=(30, 160),
    )
    screen = terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0
    header, broken, whole = screen.splitlines()[:3]
    assert header.split("  ")[0].strip("\x1b[0123456789;m ") == "name"
    assert "broken" in broken
    assert whole.startswith("my notes")
    assert "replay, budget 0.5, model" in whole
    assert "2 memories, " in screen
