"""The generated tables of docs/performance.md."""

from __future__ import annotations

import json

import pytest

from namm_lab.reports import performance, results, speed
from namm_lab.reports.pages import MARK
from namm_lab.reports.targets import targets


def row(task: str, length: int, **given):
    spread = {f"speedup_{name}": given.get("speedup", 1.0) for name in ("low", "q1", "q3", "high")}
    plain = {
        "model": "100m",
        "contender": "namm-llm",
        "policy": "replay",
        "budget": "0.25",
        "batch": 1,
        "kv_bits": None,
        "speedup": 1.0,
        "seconds": 1.0,
    }
    more = {
        "quantization": None,
        "dtype": "float32",
        "kept_fraction": 0.25,
        "nbytes": 10**6,
        "score": 100.0,
        "samples": 5,
        "ratio": None,
    }
    more |= {"date": "2026-01-01", "machine": "2 threads", "torch": "2.13.0"}
    return (
        plain
        | more
        | spread
        | {"task": task, "length": length, "peak_nbytes": 900, "before_nbytes": 800}
        | given
    )


def lines(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def test_nothing_measured_claims_nothing():
    for line in lines(targets([], [])):
        assert line[2:] == ["not measured", "", ""]
    assert (
        performance.speed([]) == performance.shares([]) == performance.memory([]) == "Not measured."
    )


@pytest.mark.parametrize(("speedup", "met"), [(1.21, "yes"), (1.19, "no")])
def test_targets_of_time(speedup, met):
    shares = {"observe": 0.2, "score": 0.05, "select": 0.05, "compact": 0.05, "policy": 0.35}
    rows = [
        row("prefill", 16_000, speedup=speedup, shares=shares),
        row("prefill", 8000, speedup=9.0, shares={}),
    ]
    prefill, decode, share, other, *_ = lines(targets(rows, []))
    assert prefill[2:] == [f"{speedup:.2f} times", f"{speedup:.2f}-{speedup:.2f}", met]
    assert share[2:] == ["35%", "", "no"]
    assert decode[2] == other[2] == "not measured"


def test_targets_of_memory():
    flat = [
        row("memory", length, budget="2048", peak_nbytes=peak)
        for length, peak in ((8000, 1000), (64_000, 1060))
    ]
    assert lines(targets(flat, []))[4][2:] == ["1.060", "", "no"]
    theirs = {"contender": "kvpress", "policy": "knorm"}
    peers = [
        row("memory", 8000),
        row("memory", 8000, **theirs, peak_nbytes=1200),
        row("prefill", 8000),
        row("prefill", 8000, **theirs, seconds=2.0),
    ]
    memory, seconds = lines(targets([], peers))[5:]
    assert memory[0] == "memory of a prefill over kvpress knorm, 8 000 tokens"
    assert memory[2:] == ["0.25", "", "yes"]
    assert seconds[2:] == ["0.50", "", "yes"]


def test_the_page_has_a_place_for_each_table():
    marks = MARK.findall(performance.PAGE.read_text())
    assert marks == [
        "targets",
        "speed",
        "batch",
        "bits",
        "others",
        "shares",
        "memory",
        "gguf",
        "gguf_needles",
        "peers",
        "peers_memory",
        "costs",
    ]


def test_costs_of_8b_in_bfloat16():
    first = lines(performance.costs().partition("\n\n")[0])[0]
    assert first[:5] == ["8b", "bfloat16 16.1", "32 000", "0.25", "4.2"]


def test_the_newest_row_counts_and_its_rounds_are_told(tmp_path, monkeypatch):
    old, new = (
        row("prefill", 16_000, speedup=1.5),
        row("prefill", 16_000, speedup=1.7, samples=3, machine="4 threads"),
    )
    (tmp_path / "speed.jsonl").write_text(f"{json.dumps(old)}\n{json.dumps(new)}\n")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    table, _, made = performance.speed(results.results_file("speed").rows).partition("\n\n")
    (line,) = lines(table)
    assert (line[10], line[-1]) == ("1.70", "3")
    assert made == "Measured 2026-01-01: 4 threads, torch 2.13.0."


def test_the_list_of_measurements_can_be_asked_for_by_name_and_made_small():
    assert len(set(speed.NAMES)) == len(speed.STEPS)
    for step in map(speed.smaller, speed.STEPS):
        assert max(step.plan.lengths) <= 400
        assert step.plan.layers == 1
