"""Ratios out of given seconds, and the file."""

from __future__ import annotations

import pytest

from namm_lab.bench.plan import Benchmark, Cell
from namm_lab.bench.rounds import Timed, shares, spread
from namm_lab.bench.rows import KEY, key_of, memory_row, timed_row
from namm_lab.rows import RowFile
from namm_llm import UsageError

CONTRACT = {
    "model",
    "task",
    "policy",
    "budget",
    "samples",
    "score",
    "full_score",
    "kept_fraction",
    "nbytes",
    "full_nbytes",
    "seconds",
}
NUMBERS = {"kept_fraction": 0.25, "nbytes": 10, "full_nbytes": 40}


def key(task: str = "prefill", **settings):
    plan = Benchmark(shape="tiny", **settings)
    contender = plan.contenders()[1]
    return key_of(plan, Cell(None, 2, 1000), task, contender, "float32")


def test_speedups_are_of_the_same_round():
    ours, theirs = (
        Timed([1.0, 2.0, 4.0, 2.0, 1.0], numbers=NUMBERS),
        Timed([2.0, 6.0, 4.0, 3.0, 4.0], numbers=NUMBERS),
    )
    row = timed_row(key(), ours, theirs)
    assert set(row) >= CONTRACT
    assert row["speedups"] == [2.0, 3.0, 1.0, 1.5, 4.0]
    assert [row["speedup" + name] for name in ("_low", "_q1", "", "_q3", "_high")] == [
        1.0,
        1.5,
        2.0,
        3.0,
        4.0,
    ]
    assert row["seconds"] == row["first_token_seconds"] == 2.0
    assert row["seconds_spread"] == [1.0, 1.0, 2.0, 4.0]
    assert (row["score"], row["full_score"]) == (2000 / 2.0, 2000 / 4.0)


def test_decoding_counts_decoded_tokens_of_all_prompts():
    row = timed_row(key("decode", decoded=16), Timed([4.0], numbers=NUMBERS), None)
    assert row["score"] == 2 * 16 / 4.0
    assert row["speedup"] is row["full_score"] is row["first_token_seconds"] is None
    assert row["speedups"] == []


def test_memory_is_a_share_of_the_reference():
    first = memory_row(
        key("memory"), {"peak_nbytes": 800, "before_nbytes": 100, **NUMBERS, "seconds": 1.0}, None
    )
    second = memory_row(
        key("memory"), {"peak_nbytes": 200, "before_nbytes": 100, **NUMBERS, "seconds": 1.0}, first
    )
    assert set(first) >= CONTRACT
    assert (first["ratio"], second["ratio"], second["full_score"]) == (None, 0.25, 800)
    unknown = memory_row(
        key("memory"),
        {"peak_nbytes": None, "before_nbytes": None, **NUMBERS, "seconds": 1.0},
        first,
    )
    assert unknown["ratio"] is None


def test_spread_is_of_quartiles():
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {
        "median": 3.0,
        "low": 1.0,
        "q1": 2.0,
        "q3": 4.0,
        "high": 5.0,
    }
    assert set(spread([7.0]).values()) == {7.0}


def test_shares_are_of_their_own_round():
    timed = Timed(
        stages=[
            ({"observe": 1.0, "select": 1.0}, 10.0),
            ({"observe": 6.0, "select": 1.0}, 20.0),
            ({"observe": 0.0, "select": 3.0}, 10.0),
        ]
    )
    assert shares(timed) == {"observe": 0.1, "select": 0.1, "policy": 0.3}
    assert shares(Timed([1.0])) == {}


def test_a_file_finds_its_rows_again_and_drops_a_line_that_was_cut(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = timed_row(key(), Timed([1.0], numbers=NUMBERS), None)
    RowFile(path, KEY).add(row)
    with path.open("a") as file:
        file.write('{"model": "ti')
    assert RowFile(path, KEY).find(key()) == row
    assert path.read_text().count("\n") == 1
    assert path.read_text().endswith("}\n")
    for name in set(KEY) - {"version"}:
        assert RowFile(path, KEY).find(key() | {name: "other"}) is None


def test_a_file_that_is_no_file_of_rows_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(UsageError, match="line 1 is no JSON object"):
        RowFile(tmp_path / "notes.txt", KEY)
    with pytest.raises(UsageError, match="cannot be written"):
        RowFile(tmp_path / "nowhere" / "rows.jsonl", KEY)
