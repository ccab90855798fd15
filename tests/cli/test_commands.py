"""Whole output and exit code of each command, with a fake runner."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from namm_llm.cli.output import size, tell_cut
from namm_llm.config import SamplingParams
from namm_llm.errors import ContextError
from tests.cli.conftest import FakeCommandLine
from tests.cli.fake import CONTRACT

STATISTICS = (
    "142 tok · 18.3 tok/s · ttft 0.41 s · prompt 1 203 (1 150 cached) · KV 512/2 048 kept "
    "(−1 536 evicted) 34 MB\n"
)


def test_ask_prints_one_answer_for_each_question(cli: FakeCommandLine, handbook: str) -> None:
    done = cli(["Yes, it is.", "Green."], "ask", handbook, "Is it green?", "What colour?")
    assert (done.stdout, done.stderr, done.exit_code) == ("Yes, it is.\nGreen.\n", "", 0)
    assert cli.runner.asked == ["Is it green?", "What colour?"]
    assert cli.runner.read_texts == ["The lamp is green.\n"]


def test_only_given_options_are_passed_on(cli: FakeCommandLine, handbook: str) -> None:
    cli(
        ["Yes."],
        "ask",
        handbook,
        "Green?",
        "--policy",
        "h2o",
        "--budget",
        "0.25",
        "--max-tokens",
        "7",
        "--seed",
        "0",
    )
    assert cli.settings is not None
    assert cli.settings.runner == {"policy": "h2o", "budget": "0.25"}
    assert cli.runner.params == [SamplingParams(max_tokens=7, stop_loops=True, seed=0)]


SAMPLING = (
    "--temperature 0.7 --top-k 40 --top-p 0.9 --min-p 0.05 --repetition-penalty 1.1 "
    "--presence-penalty 0.5 --frequency-penalty 0.25 --seed 7 --stop END --stop \\n\\n"
).split(" ")


def test_every_sampling_option_reaches_the_model(cli: FakeCommandLine, handbook: str) -> None:
    cli(["Yes."], "ask", handbook, "Green?", *SAMPLING)
    assert cli.runner.params == [
        SamplingParams(
            temperature=0.7,
            top_k=40,
            top_p=0.9,
            min_p=0.05,
            repetition_penalty=1.1,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            seed=7,
            stop=("END", "\\n\\n"),
            stop_loops=True,
        )
    ]


@pytest.mark.parametrize("given", ["schema.json", '{"type": "object"}'])
def test_a_schema_is_a_file_or_json(
    cli: FakeCommandLine, handbook: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(handbook).parent)
    Path("schema.json").write_text('{"type": "object"}')
    cli(["{}"], "ask", handbook, "Green?", "--json-schema", given)
    assert cli.runner.params == [SamplingParams(json_schema={"type": "object"}, stop_loops=True)]
    done = cli(["{}"], "ask", handbook, "Green?", "--json-schema", "none.json")
    assert done.stderr == (
        "Error: --json-schema none.json: the file cannot be read (No such file or directory).\n"
    )
    assert done.exit_code == 2


def test_a_cut_answer_says_what_cut_it(capsys: pytest.CaptureFixture[str]) -> None:
    tell_cut(1024, 1024, "/set max_tokens")
    tell_cut(90, 256, "--max-tokens")
    assert capsys.readouterr() == (
        "",
        "(cut at 1 024 tokens; /set max_tokens allows more)\n"
        "(cut after 90 tokens, at the model's last trained position)\n",
    )


def test_json_is_one_object_for_each_answer(cli: FakeCommandLine, handbook: str) -> None:
    done = cli(["Ja, grün.", "Yes."], "ask", handbook, "Green?", "Sure?", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {**CONTRACT, "text": "Ja, grün."}
    assert second == CONTRACT
    assert "grün" in done.stdout


def test_statistics_go_to_stderr(cli: FakeCommandLine, handbook: str) -> None:
    done = cli(["Yes."], "ask", handbook, "Green?", "--stats")
    assert (done.stdout, done.stderr) == ("Yes.\n", STATISTICS)


def test_the_document_may_come_from_standard_input(cli: FakeCommandLine) -> None:
    done = cli(["Yes."], "ask", "-", "Green?", stdin="Grün ist die Lampe.")
    assert (done.stdout, done.exit_code) == ("Yes.\n", 0)
    assert cli.runner.read_texts == ["Grün ist die Lampe."]
    assert cli.runner.asked == ["Green?"]


def test_piped_text_goes_before_the_question(cli: FakeCommandLine, handbook: str) -> None:
    cli(["Yes."], "ask", handbook, "Does this fit?", stdin="a green lamp\n")
    assert cli.runner.asked == ["a green lamp\n\nDoes this fit?"]


def test_errors_are_one_line_and_their_exit_code(cli: FakeCommandLine, handbook: str) -> None:
    done = cli([ContextError("4 096 positions, 9 000 tokens")], "ask", handbook, "Green?")
    assert (done.stdout, done.stderr, done.exit_code) == (
        "",
        "Error: 4 096 positions, 9 000 tokens\n",
        1,
    )


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (["ask", "x.txt"], "Error: Missing argument 'QUESTION...'.\n"),
        (["ask", "x.txt", "q", "--max-tokens", "some"], "'some' is not a valid integer.\n"),
        (["frobnicate"], "Error: No such command 'frobnicate'.\n"),
        (["run"], "Error: No such command 'run'. Did you mean 'chat'?\n"),
        (["list"], "Error: No such command 'list'. Did you mean 'documents list'?\n"),
        (["sumarize"], "Error: No such command 'sumarize'. Did you mean 'summarize'?\n"),
        (["chat", "--polcy", "h2o"], "Error: No such option '--polcy'. Did you mean '--policy'?\n"),
    ],
)
def test_wrong_use_exits_2(cli: FakeCommandLine, arguments: list[str], ending: str) -> None:
    done = cli([], *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: namm-llm")
    assert done.stderr.endswith(ending)


def test_an_unexpected_exception_keeps_its_traceback(cli: FakeCommandLine, handbook: str) -> None:
    done = cli([], "ask", handbook, "Green?")
    assert done.exit_code == 1
    assert isinstance(
        done.exception, IndexError
    )  # the fake's queue is empty: a bug, not a user's mistake


def test_ctrl_c_keeps_what_was_said_and_exits_130(cli: FakeCommandLine, handbook: str) -> None:
    words = iter([False, False, True])

    def press() -> None:
        if next(words, False):
            os.kill(os.getpid(), signal.SIGINT)

    done = cli(["one two three four", "never"], "ask", handbook, "Count.", "Again.", between=press)
    assert (done.stdout, done.stderr, done.exit_code) == ("one two\n", "\nInterrupted.\n", 130)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (34_100_000, "34 MB"),
        (2_500_000_000, "2.5 GB"),
        (4e13, "40 TB"),
        (4e16, "40000 TB"),
    ],
)
def test_sizes(nbytes: float, text: str) -> None:
    assert size(nbytes) == text
