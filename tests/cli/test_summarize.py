"""`namm-llm summarize` with a tiny random model: whole output, exit codes, and going on after a
kill.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from namm_llm import Runner, stream_summary, summarize
from namm_llm.cli.main import main
from tests.tiny import save_tiny

SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with few positions; do not write to it."""
    return str(save_tiny(tmp_path_factory.mktemp("small") / "small", positions=320))


@pytest.fixture(scope="module")
def runner(model: str) -> Runner:
    return Runner.load(model)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with documents, and a home for what is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAMM_LLM_HOME", str(tmp_path / "home"))
    Path("note.txt").write_text("The lamp is green.\n")
    Path("door.md").write_text("# Door\n\nThe door is red.\n")
    Path("long.txt").write_text(
        "\n\n".join(
            f"Room {number}. The lamp is green, and the door is red." for number in range(24)
        )
    )
    return tmp_path


CUT = "(cut at 9 tokens; --max-tokens or a longer --length allows more)\n"


def call(model: str, *arguments: str, stdin: str = "") -> Result:
    options = ("--model", model, "--max-tokens", "9")
    return CliRunner().invoke(
        main, ["summarize", *arguments, *options], input=stdin, prog_name="namm-llm"
    )


def told(name: str, runner: Runner, **options: object) -> str:
    return summarize(Path(name).read_text(), runner, max_tokens=9, **options).text


def test_one_summary_on_stdout_and_nothing_else(folder: Path, model: str, runner: Runner) -> None:
    done = call(model, "note.txt")
    assert (done.stdout, done.stderr, done.exit_code) == (told("note.txt", runner) + "\n", CUT, 0)
    assert not Path("home").exists()


def test_standard_input(folder: Path, model: str, runner: Runner) -> None:
    done = call(model, "-", stdin="The lamp is green.\n")
    assert (done.stdout, done.stderr, done.exit_code) == (told("note.txt", runner) + "\n", CUT, 0)


def test_several_files_have_a_summary_each(folder: Path, model: str, runner: Runner) -> None:
    done = call(model, "note.txt", "door.md", "--length", "short", "--focus", "red")
    note, door = (
        told(name, runner, length="short", focus="red") for name in ("note.txt", "door.md")
    )
    assert (done.stdout, done.stderr, done.exit_code) == (
        # as click's `Result` does
        f"note.txt:\n{note}\n\ndoor.md:\n{door}\n\n".replace("\r\n", "\n"),
        CUT * 2,
        0,
    )
    assert list(Path("home/summaries").iterdir()) == []


def test_several_files_together(folder: Path, model: str, runner: Runner) -> None:
    done = call(model, "note.txt", "door.md", "--together", "--json")
    both = (
        "Document: note.txt\n\nThe lamp is green.\n\n"
        "Document: door.md\n\n# Door\n\nThe door is red.\n"
    )
    answer = json.loads(done.stdout)
    assert answer["files"] == ["note.txt", "door.md"]
    assert answer["text"] == summarize(both, runner, max_tokens=9).text


def test_a_summary_that_repeats_itself_says_so(folder: Path, model: str) -> None:
    # what the answer holds already is favoured, so that a random model repeats itself
    options = ("--max-tokens", "180", "--frequency-penalty=-2", "--model", model)
    done = CliRunner().invoke(main, ["summarize", "note.txt", *options], prog_name="namm-llm")
    assert done.stderr == (
        "(ended because it began to repeat itself; --no-stop-loops lets it go on)\n"
    )
    whole = CliRunner().invoke(main, ["summarize", "note.txt", "--no-stop-loops", *options])
    assert whole.stdout.startswith(done.stdout.rstrip("\n"))
    assert "repeat" not in whole.stderr


def test_json_has_an_object_for_each_file(folder: Path, model: str) -> None:
    done = call(model, "note.txt", "long.txt", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    common = (
        "text finish_reason looped method parts calls cut_calls resumed usage timings cache model"
    ).split()
    assert list(first) == list(second) == ["files", *common]
    assert (first["method"], second["method"]) == ("one-pass", "map-reduce")
    assert second["parts"][0]["start"] == 0
    assert second["parts"][-1]["stop"] == len(Path("long.txt").read_text())


@pytest.mark.parametrize("method", [None, "refine"])
def test_stderr_says_how_a_text_that_does_not_fit_is_gone_through(
    folder: Path, model: str, runner: Runner, method: str | None
) -> None:
    done = call(model, "long.txt", *(("--method", method) if method else ()), "--stats")
    plan = stream_summary(
        Path("long.txt").read_text(), runner, method=method or "auto", max_tokens=9
    ).plan
    why = "" if method else f", too many for one pass of {model} (320 positions)"
    how, cut, statistics = done.stderr.splitlines()
    assert f"{cut}\n" == CUT
    assert how == f"long.txt: {plan.tokens} tokens{why}: {plan.method} in {len(plan.spans)} parts."
    assert re.fullmatch(
        rf"\d+ tok · .* · KV .* · {plan.method}, {len(plan.spans)} parts, \d+ answers", statistics
    )
    assert done.exit_code == 0


def test_statistics_count_one_part_as_one(folder: Path, model: str) -> None:
    done = call(model, "note.txt", "--stats")
    assert done.stderr.splitlines()[-1].endswith(" · one-pass, 1 part, 1 answer")


def test_sampling_options_reach_the_model(folder: Path, model: str, runner: Runner) -> None:
    done = call(model, "note.txt", "--temperature", "1", "--seed", "3")
    assert done.stdout == told("note.txt", runner, temperature=1.0, seed=3) + "\n"
    assert done.stdout != call(model, "note.txt").stdout


def test_an_output_file_is_written_whole_or_not_at_all(
    folder: Path, model: str, runner: Runner
) -> None:
    done = call(model, "note.txt", "-o", "summary.txt")
    assert (done.stdout, done.stderr, done.exit_code) == ("", CUT, 0)
    assert Path("summary.txt").read_text(encoding="utf-8") == told("note.txt", runner) + "\n"
    assert call(model, "long.txt", "-o", "summary.txt", "--method", "one-pass").exit_code == 1
    assert Path("summary.txt").read_text(encoding="utf-8") == told("note.txt", runner) + "\n"


def test_a_saved_memory(folder: Path, model: str, runner: Runner) -> None:
    runner.read("The lamp is green.\n").save("note.namm")
    done = call(model, "note.namm")
    assert (done.stdout, done.stderr, done.exit_code) == (told("note.txt", runner) + "\n", CUT, 0)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["nowhere.txt"], 1, "nowhere.txt"),
        (["note.txt", "nowhere.txt"], 1, "nowhere.txt"),
        (["long.txt", "--method", "one-pass"], 1, "summarize it in parts"),
        (["long.txt", "--max-tokens", "300"], 1, "too few for a part of the text"),
        (["long.txt", "--work", "note.txt"], 1, "note.txt is no work file of a summary"),
        (["note.txt", "door.md", "--work", "long.txt"], 1, "long.txt is no work file of a summary"),
        (
            ["note.txt", "--method", "quick"],
            2,
            "method must be one of auto, one-pass, map-reduce, refine",
        ),
        (["note.txt", "--length", "tiny"], 2, "length must be a number of sentences or one of"),
        (["note.txt", "--focus", ""], 2, "the focus is empty"),
        (["note.txt", "--part-tokens", "0"], 2, "part_tokens must be"),
        (["note.txt", "--temperature", "-1"], 2, "temperature must be a number from 0 on"),
        (["note.txt", "-o", "no/summary.txt"], 2, "no/summary.txt cannot be written"),
        (["-", "-"], 2, "standard input can be read once"),
        (["note.txt", "note.namm", "--together"], 2, "leave out --together"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_change_nothing(
    folder: Path, model: str, arguments: list[str], exit_code: int, message: str
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = CliRunner().invoke(
        main, ["summarize", "--max-tokens", "9", "--model", model, *arguments], prog_name="namm-llm"
    )
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.exit_code == exit_code
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_no_file_is_wrong_use() -> None:
    done = CliRunner().invoke(main, ["summarize"], prog_name="namm-llm")
    assert (done.stdout, done.exit_code) == ("", 2)
    assert done.stderr.endswith("Error: Missing argument 'FILE...'.\n")


def test_the_help_states_the_real_defaults() -> None:
    real = {
        name: parameter.default
        for name, parameter in inspect.signature(stream_summary).parameters.items()
    }
    command = main.get_command(click.Context(main), "summarize")
    assert command is not None
    helps = {
        option.name: option.help or ""
        for option in command.params
        if isinstance(option, click.Option)
    }
    for name in ("method", "length", "part_tokens"):
        assert f"[default: {real[name]}]" in helps[name]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_after_a_kill_the_same_command_goes_on(
    folder: Path, model: str, way: signal.Signals
) -> None:
    Path("long.txt").write_text(
        "\n\n".join(
            f"Room {number}. The lamp is green, and the door is red." for number in range(200)
        )
    )
    command = ["long.txt", "--part-tokens", "60", "--method", "refine", "--json"]
    options = ["--model", model, "--max-tokens", "9"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "namm_llm", "summarize", *command, *options],
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as process:
        deadline = time.monotonic() + SECONDS
        while (
            not (kept := list(Path("home").rglob("*.jsonl")))
            or kept[0].read_bytes().count(b"\n") < 3
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(way)
        stdout, stderr = process.communicate(timeout=SECONDS)
    assert stdout == ""
    if way == signal.SIGINT:
        assert process.returncode == 130
        assert re.search(
            r"\n\d+ answers finished, in .*\.jsonl: the same command goes on from "
            r"there\.\n\nInterrupted\.\n$",
            stderr,
        )
    again = call(model, *command)
    answer = json.loads(again.stdout)
    assert re.search(
        rf"Going on from {re.escape(str(kept[0].resolve()))}, which holds "
        rf"{answer['resumed']} answers\.",
        again.stderr,
    )
    assert answer["resumed"] >= 2
    assert not kept[0].exists()
    whole = json.loads(call(model, *command).stdout)
    assert whole["resumed"] == 0
    for result in (answer, whole):
        del result["timings"], result["resumed"]
    assert answer == whole
