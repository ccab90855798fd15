"""`namm-llm bench` as a user calls it."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest
from click.testing import CliRunner, Result

from namm_lab.bench import Benchmark
from namm_lab.cli.bench import bench
from namm_llm.cli.main import main

FAST = (
    "--lengths",
    "150",
    "--interval",
    "64",
    "--runs",
    "2",
    "--decoded",
    "3",
    "--tasks",
    "prefill,decode",
)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("bench", *arguments), prog_name="namm-llm")


def test_tables_rows_and_plot(least, tmp_path):
    file, plot = tmp_path / "rows.jsonl", tmp_path / "rows.png"
    arguments = (
        "--shape",
        least,
        *FAST,
        "--policies",
        "knorm,full",
        "--peers",
        "whole",
        "--json",
        str(file),
        "--plot",
        str(plot),
    )
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["contender"] for row in rows] == [
        "transformers",
        "namm-llm",
        "namm-llm",
        "transformers-whole",
    ] * 2
    assert "prefill, least, 150 tokens, float32" in done.stdout
    assert "decode, least, 150 tokens, float32" in done.stdout
    for row in rows:
        assert f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}" in done.stdout
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert call(*arguments).stdout == done.stdout  # nothing was measured again
    assert len(file.read_text().splitlines()) == len(rows)


def test_ours_alone(least):
    done = call("--shape", least, *FAST, "--peers", "none")
    assert done.exit_code == 0, done.output
    assert "transformers" not in done.stdout
    assert re.search(r"│ replay 0\.25 +│ 0\.\d+ .* - +│ +- +│ +\d+% +│", done.stdout)


def test_the_cost_of_a_model_that_is_not_here():
    done = call(
        "--plan",
        "--shape",
        "8b",
        "--dtype",
        "bfloat16",
        "--lengths",
        "131072",
        "--budgets",
        "2048",
        "--quantizations",
        "nf4",
    )
    assert done.exit_code == 0
    assert "8b: 8.03 billion weights in nf4" in done.stdout
    assert re.search(r"│ 131 072 replay 2048 │ +5\.7 GB │ +17 GB │ +2 048 │ +268 MB │", done.stdout)


def test_caches_in_8_bits_cost_less(least, tmp_path):
    file = tmp_path / "rows.jsonl"
    arguments = ("--shape", least, "--lengths", "600", "--peers", "none", "--kv-bits", "none,8")
    planned = call("--plan", *arguments).stdout
    kept = dict(re.findall(r"│ 600 (replay 0\.25(?: 8-bit)?) +│.*?│.*?│.*?│ +([\d.]+) kB", planned))
    assert float(kept["replay 0.25 8-bit"]) == pytest.approx(
        float(kept["replay 0.25"]) * (16 + 4) / (16 * 4), rel=0.06
    )
    # above: sizes are said in two digits
    done = call(*arguments, *FAST[2:], "--json", str(file))
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["kv_bits"] for row in rows] == [None, 8] * 2
    assert rows[1]["nbytes"] < rows[0]["nbytes"]
    assert "replay 0.25 8-bit" in done.stdout


def test_measuring_again_replaces_rows(least, tmp_path):
    file = tmp_path / "rows.jsonl"
    arguments = ("--shape", least, *FAST, "--peers", "none", "--json", str(file))
    first = call(*arguments).stdout
    second = call(*arguments, "--again").stdout
    assert len(file.read_text().splitlines()) == 4
    assert second != first
    assert call(*arguments).stdout == second  # the newer rows count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "9b"), "there is no shape '9b'"),
        (("--shape", "tiny", "--model", "x"), "give one of the two"),
        (("--lengths", "many"), "--lengths takes whole numbers"),
        (("--shape", "tiny", "--peers", "vllm"), "there is no peer 'transformers-vllm'"),
        (("--shape", "tiny", "--plot", "plot.txt"), "must end in .png"),
        (("--shape", "tiny", "--json", "nowhere/rows.jsonl"), "cannot be written"),
    ],
)
def test_wrong_use_is_one_line(arguments, message):
    done = call(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_help_states_the_defaults_of_a_benchmark():
    real = {field.name: field.default for field in fields(Benchmark)}
    stated = {
        option.name: re.search(r"\[default: ([^]]+)\]", getattr(option, "help", "") or "")
        for option in bench.params
    }
    for name in (
        "tasks",
        "lengths",
        "policies",
        "budgets",
        "batches",
        "quantizations",
        "kv_bits",
        "interval",
        "decoded",
        "runs",
        "device",
        "dtype",
    ):
        default = real[name]
        assert stated[name] is not None
        assert stated[name][1] == (
            ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        ), name
    assert tuple(f"transformers-{peer}" for peer in stated["peers"][1].split(",")) == real["peers"]
