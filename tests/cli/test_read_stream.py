"""`namm-llm read -` of a stream: in pieces, killed and given again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_llm.cli.main import main
from namm_llm.documents import MemoryStore
from namm_llm.runner import Runner

LOG = "".join(f"{n:05} vault {n * 7919 % 1000} holds {n * 31 % 97} coins.\n" for n in range(160))
OPTIONS = ["--model", "./model", "--budget", "24", "--interval", "32", "--save-every", "64"]
READ = ["read", "-", "--name", "log", *OPTIONS]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("namm_llm.cli.inputs.STREAM_BYTES", 400)
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 300)
    shutil.copytree(tiny_folder, "model")


def call(*arguments: str, stdin: str | bytes = LOG) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, prog_name="namm-llm")


def kept() -> tuple[str, dict[str, str], int]:
    header = MemoryStore().entry("log").header
    assert header is not None
    return header.text_sha256, header.extra, header.seen_tokens


def whole(text: str = LOG) -> Runner:
    runner = Runner.load("./model", budget=24, interval=32)
    return runner.read(text)


def same(memory: object, other: object) -> bool:
    states = [each.session.call(each.cache.state)[0] for each in (memory, other)]
    return all(bool((column == states[1][name]).all()) for name, column in states[0].items())


def test_a_stream_becomes_the_memory_of_the_whole_text() -> None:
    done = call(*READ)
    assert (done.exit_code, done.stdout) == (0, "log\n"), done.output
    text_sha256, extra, seen = kept()
    assert extra == {"characters": str(len(LOG)), "sources": "standard input"}
    memory = whole()
    assert memory.cache.seen_tokens() == [seen]
    opened = Runner(memory.session).open(MemoryStore().entry("log").path)
    assert same(opened, memory)
    assert opened.info()["text_sha256"] == text_sha256


def test_given_again_nothing_is_read_and_a_longer_log_is_gone_on_with() -> None:
    call(*READ, stdin=LOG[:4000])
    before = kept()
    again = call(*READ, stdin=LOG[:4000])
    assert again.exit_code == 0
    assert "Going on behind what was read of it before." in again.stderr
    assert kept() == before
    assert call(*READ).exit_code == 0
    assert kept()[1]["characters"] == str(len(LOG))


def test_bytes_that_are_no_text_end_nothing_behind_the_first_lines() -> None:
    start = LOG.encode()
    done = call(*READ, stdin=start + b"a \0 and \xff here\n" + start)
    assert done.exit_code == 0
    assert done.stderr.count("are read as U+FFFD") == 1
    assert kept()[2] == whole(LOG + "a \ufffd and \ufffd here\n" + LOG).cache.seen_tokens()[0]


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"\xff\n", "not UTF-8"), (b"%PDF-1.4\n", "is a PDF"), (b"a\0b\n", "zero byte")],
)
def test_what_is_no_text_at_its_beginning_is_refused(start: bytes, message: str) -> None:
    refused = call(*READ, stdin=start + LOG.encode())
    assert refused.exit_code == 1
    assert message in refused.stderr
    assert MemoryStore().entries() == []


def test_another_text_with_the_same_beginning_is_refused() -> None:
    call(*READ)
    before = kept()
    refused = call(*READ, stdin=LOG[:2000] + LOG)
    assert refused.exit_code == 1
    assert "does not begin with" in refused.stderr
    assert kept() == before


KILLED = """
import os, signal, sys
from namm_llm import cli
from namm_llm.cli import inputs
from namm_llm.documents import blocks, saved
inputs.STREAM_BYTES, blocks.BLOCK = 400, 300
from namm_llm import document
write, saves = document.write, []
def dying(path, *what):
    write(path, *what)
    saves.append(path)
    if len(saves) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
document.write = dying
from namm_llm.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_a_killed_process_loses_nothing() -> None:
    command = [sys.executable, "-c", KILLED, *READ]
    killed = subprocess.run(command, input=LOG.encode(), capture_output=True, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (part,) = MemoryStore().entries()
    assert part.header is not None
    assert 0 < part.header.seen_tokens < whole().cache.seen_tokens()[0]
    assert call(*READ).exit_code == 0
    memory = whole()
    opened = Runner(memory.session).open(MemoryStore().entry("log").path)
    assert same(opened, memory)
    assert opened.fingerprint == memory.fingerprint
    assert len(MemoryStore().entries()) == 1
