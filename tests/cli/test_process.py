"""The real process: pipes, signals and a terminal, with a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner

from namm_llm.cli.main import main

COMMAND = [sys.executable, "-m", "namm_llm"]
SECONDS = 120


@pytest.fixture
def note(tmp_path: Path) -> str:
    path = tmp_path / "note.txt"
    path.write_text("The lamp is green. The door is red.\n")
    return str(path)


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """A process, its stdout and its stderr."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield process, process.stdout, process.stderr


def test_stdout_has_the_answer_alone_and_piped_text_reaches_the_model(
    tiny_folder: Path, note: str
) -> None:
    arguments = [
        "ask",
        note,
        "What colour?",
        "--model",
        str(tiny_folder),
        "--max-tokens",
        "5",
        "--json",
        "--stats",
    ]
    done = subprocess.run(
        [*COMMAND, *arguments],
        input="a much longer question",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert list(answer) == [
        *("text", "finish_reason", "usage", "timings", "cache", "model"),
        *("looped", "closed_early", "logprobs"),
    ]
    assert done.stderr.count("\n") == 1
    assert " tok · " in done.stderr
    assert "\x1b" not in done.stderr
    alone = json.loads(CliRunner().invoke(main, arguments, input="").stdout)
    assert answer["usage"]["input_tokens"] > alone["usage"]["input_tokens"]


def test_a_reader_that_leaves_is_no_traceback(tiny_folder: Path, note: str) -> None:
    with running("ask", note, "Talk.", "--model", str(tiny_folder), "--max-tokens", "500") as (
        process,
        stdout,
        stderr,
    ):
        stdout.read(1)
        stdout.close()
        assert process.wait(SECONDS) == 1
        assert stderr.read() == b""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.5])
def test_ctrl_c_while_starting_is_no_traceback(
    tiny_folder: Path, note: str, seconds: float
) -> None:
    with running("ask", note, "Talk.", "--model", str(tiny_folder)) as (process, _, stderr):
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        code = process.wait(SECONDS)
        said = stderr.read()
    assert b"namm_llm" not in said  # a traceback of Python's own start is not ours to prevent
    assert code != 130 or said.strip() == b"Interrupted."


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_ends_an_answer_with_130(tiny_folder: Path, note: str) -> None:
    with running("ask", note, "Talk.", "--model", str(tiny_folder), "--max-tokens", "3000") as (
        process,
        stdout,
        stderr,
    ):
        first = stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert stderr.read() == b"\nInterrupted.\n"
        assert (first + stdout.read()).endswith(b"\n")
