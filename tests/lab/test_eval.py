"""`namm-llm eval`: rows, table and plot with a real model, and what a user can get wrong."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_lab.cli.eval import eval as command
from namm_lab.evaluate import Evaluation
from namm_llm.cli.main import main


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("eval", *arguments), prog_name="namm-llm")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_bundled_model_by_rows_table_and_plot(folder: Path) -> None:
    options = (
        "--lengths",
        "700",
        "--samples",
        "1",
        "--questions",
        "6",
        "--interval",
        "128",
        "--budgets",
        "0.25",
        "--seed",
        "2",
    )
    done = call(
        "--policies", "keydiff,random", *options, "--json", "rows.jsonl", "--plot", "plot.png"
    )
    assert done.exit_code == 0, done.output
    full, keydiff, random = (
        json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()
    )
    assert full["score"] >= 4 / 6
    assert random["score"] < full["score"]
    assert keydiff["share"] == keydiff["score"] / full["score"]
    assert "fact, 700 tokens, agnostic: 6 scores of 1 documents" in done.stdout
    for row in (full, keydiff, random):
        assert re.search(rf"│ {row['policy']} .* {row['score']:.3f} │", done.stdout)
    assert Path("plot.png").read_bytes()[:4] == b"\x89PNG"
    assert "namm-tiny: a tiny bundled model" in done.stderr
    written = Path("rows.jsonl").read_bytes()
    again = call("--policies", "random,keydiff", *options, "--json", "rows.jsonl")
    assert Path("rows.jsonl").read_bytes() == written
    assert sorted(again.stdout.splitlines()) == sorted(done.stdout.splitlines())


def test_several_tasks_and_both_modes(folder: Path, tiny_folder: Path) -> None:
    tasks = "missing,passages,prose,code"
    options = (
        "--policies",
        "h2o",
        "--budgets",
        "60",
        "--lengths",
        "150",
        "--samples",
        "1",
        "--questions",
        "1",
        "--interval",
        "64",
    )
    done = call(
        "--model",
        str(tiny_folder),
        "--tasks",
        tasks,
        "--mode",
        "agnostic,aware",
        *options,
        "-o",
        "rows.jsonl",
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows if row["mode"] == "agnostic"} == set(tasks.split(","))
    assert {row["task"] for row in rows if row["mode"] == "aware"} == set(tasks.split(",")) - {
        "prose",
        "code",
    }
    assert {row["perplexity"] for row in rows if row["task"] == "prose"} == {
        1 / row["score"] for row in rows if row["task"] == "prose"
    }


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--tasks", "facts"], 2, "there is no task 'facts' (did you mean fact?)"),
        (["--policies", "h20"], 2, "there is no policy 'h20' (did you mean h2o?)"),
        (["--budgets", "lots"], 2, "'lots' is not a budget"),
        (
            ["--lengths", "short"],
            2,
            "--lengths takes whole numbers, such as 2000,8000, not 'short'",
        ),
        (["--mode", "both"], 2, "the mode must be one of agnostic, aware"),
        (["--texts", "texts"], 1, "texts holds no .txt, .md or .py file"),
        (["--texts", "nowhere"], 1, "nowhere is not a folder"),
        (["--tasks", "ruler:nowhere.jsonl"], 1, "there is no file nowhere.jsonl"),
        (["--namm", "nowhere.safetensors"], 1, "nowhere.safetensors: no such NAMM file"),
        (["--json", "texts"], 2, "texts cannot be written"),
        (["--plot", "plot.gif"], 2, "plot.gif must end in .png"),
        (["--plot", "nowhere/plot.png"], 2, "nowhere/plot.png cannot be written"),
        (["--policies", "namm"], 2, "policy namm needs a trained NAMM"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(
    folder: Path, tiny_folder: Path, options: list[str], code: int, message: str
) -> None:
    Path("texts").mkdir()
    done = call("--model", str(tiny_folder), "--samples", "1", "--lengths", "200", *options)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in folder.rglob("*")) == ["texts"]


def test_the_help_page_states_the_defaults_of_the_plan() -> None:
    helps = {option.name: getattr(option, "help", "") or "" for option in command.params}
    stated = {
        name: found[1]
        for name, text in helps.items()
        if (found := re.search(r"\[default: ([^]]+)\]", text))
    }
    for field in fields(Evaluation):
        if field.name in ("policies", "namms", "texts"):
            continue
        default = field.default if isinstance(field.default, tuple) else (field.default,)
        if default == (None,):
            default = ("as computed" if field.name == "kv_bits" else "the policy's",)
        assert stated[field.name] == ",".join(map(str, default)), field.name
