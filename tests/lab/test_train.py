"""`namm-llm train` from end to end with a tiny random model, and what a user can get wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from namm_lab.cli.train import train
from namm_llm import Namm
from namm_llm.cli.main import main

QUICK = ("--interval", "48", "--length", "100")
EVOLVE = (
    "--tasks",
    "fact",
    "--population",
    "4",
    "--documents",
    "1",
    "--validation",
    "1",
    "--questions",
    "2",
    "--validate-every",
    "1",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_folder)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(
        main, ["train", *arguments, "--model", "./model"], prog_name="namm-llm"
    )


def evolve(*arguments: str, generations: int = 2) -> Result:
    return call("evolve", *QUICK, *EVOLVE, "--generations", str(generations), *arguments)


def log() -> list[dict]:
    rows = [json.loads(line) for line in Path("namm.safetensors.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def refused(done: Result, exit_code: int, message: str) -> None:
    """One line, and no file."""
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == exit_code, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert message in done.stderr.splitlines()[-1]
    assert [path.name for path in Path.cwd().iterdir() if path.name.startswith("namm")] == []


def test_distil_calibrate_and_ask(folder: Path) -> None:
    done = call(
        "distil",
        *QUICK,
        "--documents",
        "2",
        "--steps",
        "5",
        "--rounds",
        "1",
        "--tasks",
        "fact,prose",
        "-o",
        "first.safetensors",
    )
    assert (done.exit_code, done.exception) == (0, None), done.output
    assert re.fullmatch(
        r"first\.safetensors: distilled for \./model in \d+ s\. Use it with --namm "
        r"first\.safetensors\n",
        done.stdout,
    )
    assert re.fullmatch(
        r"Distilling for \./model: 2 documents, \d+ tokens, tasks fact, prose\. Writes "
        r"first\.safetensors\.\n",
        done.stderr,
    )
    (logged,) = (
        json.loads(line) for line in Path("first.safetensors.jsonl").read_text().splitlines()
    )
    assert (logged["round"], logged["step"]) == (1, 5)
    assert logged.keys() == {"round", "step", "loss", "samples", "seconds", "cpu_seconds"}
    done = call(
        "calibrate",
        *QUICK,
        "--namm",
        "first.safetensors",
        "--documents",
        "2",
        "-o",
        "second.safetensors",
    )
    assert (done.exit_code, done.exception) == (0, None), done.output
    assert done.stdout.startswith(
        "second.safetensors: first.safetensors calibrated for ./model in "
    )
    first, second = Namm.load("first.safetensors"), Namm.load("second.safetensors")
    assert torch.equal(first.theta, second.theta)
    assert not torch.equal(first.mean, second.mean)
    Path("note.txt").write_text("The lamp is green. " * 20)
    options = (
        "--model",
        "./model",
        "--namm",
        "second.safetensors",
        "--policy",
        "namm",
        "--budget",
        "0.5",
        "--interval",
        "48",
        "--max-tokens",
        "2",
    )
    asked = CliRunner().invoke(main, ["ask", "note.txt", "What colour?", *options])
    assert asked.exit_code == 0, asked.output


def test_distil_keeps_the_namm_of_each_round(folder: Path) -> None:
    done = call(
        "distil",
        *QUICK,
        "--documents",
        "1",
        "--steps",
        "3",
        "--rounds",
        "2",
        "--tasks",
        "fact",
        "--keep-rounds",
    )
    assert done.exit_code == 0, done.output
    assert [
        json.loads(line)["round"]
        for line in Path("namm.safetensors.jsonl").read_text().splitlines()
    ] == [1, 2]
    assert (
        Namm.load("namm.safetensors.round1")
        != Namm.load("namm.safetensors.round2")
        == Namm.load("namm.safetensors")
    )


def test_evolve_goes_on_by_itself_and_starts_over_with_force(folder: Path) -> None:
    whole = evolve(generations=3)
    assert (whole.exit_code, whole.exception) == (0, None), whole.output
    assert re.fullmatch(
        r"namm\.safetensors: \d+\.\d% of the full cache's likelihood on validation after 3 "
        r"generations\. "
        r"Use it with --namm namm\.safetensors\n",
        whole.stdout,
    )
    assert (
        "starts from zeros, 4 candidates, budgets 0.0625, 0.03125, tasks fact. Writes "
        "namm.safetensors." in whole.stderr
    )
    expected, namm = log(), Namm.load("namm.safetensors")
    assert [row["generation"] for row in expected] == [0, 1, 2, 3]
    done = evolve("--force", generations=1)
    assert done.exit_code == 0
    assert [row["generation"] for row in log()] == [0, 1]
    done = evolve("--resume", generations=3)
    assert "goes on after generation 1" in done.stderr
    assert log() == expected
    assert Namm.load("namm.safetensors") == namm
    refusal = evolve("--sigma", "0.5", generations=3)
    assert refusal.exit_code == 2
    assert refusal.stderr == (
        "Error: namm.safetensors.work was begun with sigma none, not 0.5: "
        "give the same options to go on, --force to start over, or another --out.\n"
    )
    again = evolve("--minutes", "0", generations=9)
    assert "after 3 generations" in again.stdout


def test_evolve_from_a_namm_in_stages(folder: Path) -> None:
    Namm.zeros().save("start.safetensors")
    done = evolve(
        "--namm",
        "start.safetensors",
        "--tasks",
        "prose",
        "--budgets",
        "0.5,threshold",
        generations=1,
    )
    assert done.exit_code == 0, done.output
    assert "starts from a NAMM" in done.stderr
    assert "tasks fact then fact, prose" in done.stderr
    assert [(row["stage"], row["tasks"]) for row in log()] == [(0, ["fact"])] * 2 + [
        (1, ["fact", "prose"])
    ] * 2


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["evolve", "--budgets", "0"], 2, "0 is not a budget"),
        (["evolve", "--budgets", "0.25,lots"], 2, "'lots' is not a budget"),
        (["evolve", "--tasks", "facts"], 2, "there is no task 'facts' (did you mean fact?)"),
        (["evolve", "--population", "1"], 2, "at least 4 candidates, not 1"),
        (["evolve", "--measure", "luck"], 2, "measure must be one of likelihood, tokens, exact"),
        (
            ["evolve", "--workers", "many"],
            2,
            "workers must be ray or a number of processes, not 'many'",
        ),
        (["evolve", "--namm", "nowhere.safetensors"], 1, "nowhere.safetensors: no such NAMM file"),
        (["evolve", "--resume"], 2, "there is no namm.safetensors.work to go on from"),
        (
            ["evolve", "--length", "long"],
            2,
            "--length takes whole numbers, such as 2000,8000, not 'long'",
        ),
        (
            ["evolve", "--length", "4000"],
            1,
            "documents of 4000 tokens and 1024 for the questions do not fit ./model",
        ),
        (["evolve", "--texts", "nowhere", *QUICK], 1, "nowhere is not a folder"),
        (["distil", "--texts", "empty", *QUICK], 1, "holds no .txt, .md or .py file"),
        (
            ["distil", "--budget-scope", "everybody", "--steps", "1", "--documents", "1", *QUICK],
            2,
            "budget_scope must be one of",
        ),
        (
            ["distil", "--family", "nothing", *QUICK],
            2,
            "there is no family 'nothing'; there are: neighbours, ",
        ),
        (["distil", "--budget", "0", *QUICK], 2, "0.0 is not a budget"),
        (["distil", "-o", "nowhere/namm.safetensors"], 2, "name a file in a folder that exists"),
        (["distil", "-o", "empty"], 2, "empty exists already"),
        (["calibrate", "--namm", "text.txt"], 1, "text.txt: not a safetensors file"),
        (
            ["calibrate", "--namm", "good.safetensors", "--length", "100"],
            2,
            "a text of at least 512 tokens",
        ),
        (
            ["calibrate", "--namm", "good.safetensors", "--documents", "0", *QUICK],
            2,
            "1 document or more, not 0",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(folder: Path, arguments: list[str], exit_code: int, message: str) -> None:
    Path("empty").mkdir()
    Path("text.txt").write_text("no NAMM")
    Namm.zeros().save("good.safetensors")
    refused(call(*arguments), exit_code, message)


def test_a_missing_model_and_a_file_that_is_there(folder: Path) -> None:
    done = CliRunner().invoke(main, ["train", "distil", "--model", "./nowhere"])
    refused(done, 1, "nowhere")
    Path("namm.safetensors").write_text("precious")
    for name in ("distil", "evolve"):
        done = call(name)
        assert done.exit_code == 2
        assert (
            "namm.safetensors exists already: name another file with --out, or replace it with "
            "--force" in done.stderr
        )
    assert Path("namm.safetensors").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_leaves_a_checkpoint_and_says_so(folder: Path) -> None:
    arguments = [
        "train",
        "evolve",
        *QUICK,
        *EVOLVE,
        "--generations",
        "500",
        "--patience",
        "500",
        "--model",
        "./model",
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "namm_llm", *arguments], stdout=pipe, stderr=pipe, text=True
    ) as process:
        while process.poll() is None and not Path("namm.safetensors.work").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert error.splitlines()[-3:] == [
        "namm.safetensors has the best NAMM so far; the same call goes on from "
        "namm.safetensors.work.",
        "",
        "Interrupted.",
    ]
    assert Namm.load("namm.safetensors").theta.numel()


@pytest.mark.parametrize("name", ["distil", "evolve", "calibrate"])
def test_help_states_the_real_defaults_and_does_not_import_torch(name: str) -> None:
    from namm_lab.train import DistilSettings
    from namm_lab.train.evolve_settings import EvolveSettings

    settings = {"distil": DistilSettings, "evolve": EvolveSettings}.get(name)
    real = {field.name: field.default for field in fields(settings)} if settings else {}
    command = train.get_command(click.Context(train), name)
    assert command is not None
    for option in command.params:
        assert isinstance(option, click.Option)
        assert option.required or option.to_info_dict()["default"] in (None, False, ())
        default = real.get(option.name)
        if default is not None and option.name not in ("tasks", "sigma"):
            stated = re.search(r"\[default: ([^]]+)\]", option.help or "")
            assert stated is not None, option.name
            assert stated[1] == (
                ",".join(default)
                if isinstance(default, tuple)
                else f"{default:g}"
                if isinstance(default, float)
                else str(default)
            )
    code = (
        "import sys; import namm_llm.cli.main as cli\n"
        f"try: cli.main(['train', {name!r}, '--help'])\nexcept SystemExit: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "print({'torch', 'rich'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.endswith("set()\n")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["2", "ray"])
def test_other_workers_evolve_the_same_namm(folder: Path, workers: str) -> None:
    if workers == "ray":
        pytest.importorskip("ray")
    arguments = [
        "train",
        "evolve",
        *QUICK,
        *EVOLVE,
        "--generations",
        "2",
        "--batch",
        "3",
        "--model",
        "./model",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for out, options in (("here.safetensors", []), ("there.safetensors", ["--workers", workers])):
        command = [sys.executable, "-m", "namm_llm", *arguments, "-o", out, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 2, (
            done.stderr
        )  # what it calibrates and evolves, and nothing of the workers'
    for suffix in ("", ".work"):
        assert (
            Path(f"here.safetensors{suffix}").read_bytes()
            == Path(f"there.safetensors{suffix}").read_bytes()
        )
