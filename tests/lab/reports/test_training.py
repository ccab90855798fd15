"""Ablations and curves of training on a tiny random model: rows come one by one, and what was done
is not done again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from namm_lab.reports import ablations, curves, quality
from namm_lab.reports.results import KEYS, RESULTS
from namm_lab.rows import RowFile, read_rows


def row(name: str, budget: str | None, score: float, **more) -> dict:
    cost = {
        "parameters": 5,
        "state_bytes": 2,
        "distil_seconds": None,
        "length": 100,
        "samples": 4,
        "full_score": 1.0,
    }
    return {"ablation": name, "budget": budget, "score": score, **cost, **more}


def test_one_line_for_each_ablation_and_one_column_for_each_budget() -> None:
    found = [
        row("a", "0.25", 0.9),
        row("a", "0.125", 0.8),
        row("b", "0.125", 0.5, distil_seconds=9.5),
        row("c", None, 0.7),
    ]
    table = ablations.side_by_side(found)
    assert list(table[0])[-4:] == ["0.25", "0.125", "threshold", "full cache"]
    assert [
        [line[name] for name in ("ablation", "0.25", "0.125", "threshold", "distilling, CPU s")]
        for line in table
    ] == [["a", 0.9, 0.8, None, None], ["b", None, 0.5, None, 9.5], ["c", None, None, 0.7, None]]


def test_one_line_for_each_policy_and_one_column_for_each_budget() -> None:
    first = {
        "model": "namm-tiny",
        "task": "fact",
        "length": 100,
        "budget_scope": "head",
        "samples": 4,
        "full_score": 0.9,
        "full_nbytes": 8_000_000,
        "nbytes": 2_000_000,
    }
    found = [
        {**first, "policy": policy, "budget": budget, "score": score}
        for policy, budget, score in (
            ("full", None, 0.9),
            ("a", "0.25", 0.8),
            ("a", "0.5", 0.85),
            ("b", None, 0.7),
        )
    ]
    table = quality.side_by_side(found)
    assert [
        [
            line[name]
            for name in (
                "policy",
                "0.5",
                "0.25",
                "threshold",
                "full cache",
                "MB at 0.25",
                "MB full",
            )
        ]
        for line in table
    ] == [["a", 0.85, 0.8, None, 0.9, 2.0, 8.0], ["b", None, None, 0.7, 0.9, None, 8.0]]


@pytest.mark.parametrize("name", ablations.RECIPES)
def test_every_recipe_is_one_that_train_distil_takes(name: str) -> None:
    from namm_lab.cli.train import train
    from namm_lab.train.families import family

    options = train.commands["distil"].make_context("distil", list(ablations.RECIPES[name])).params
    family(options["family"] or "neighbours")


def test_a_row_is_found_by_what_it_measured(tmp_path: Path) -> None:
    key, path = ("a", "b"), tmp_path / "rows.jsonl"
    assert RowFile(path, key).find({"a": 1}) is None
    for row in (
        {"a": 1, "b": (1, 2), "score": 0.1},
        {"a": 1, "b": (1, 2), "score": 0.2},
        {"a": 2, "score": 0.3},
    ):
        RowFile(path, key).add(row)
    file = RowFile(path, key)
    assert [row["score"] for row in file.rows] == [0.2, 0.3]
    assert file.find({"a": 1, "b": (1, 2), "c": 5})["score"] == 0.2
    assert file.find({"a": 2, "b": (1, 2)}) is None
    assert file.find({"a": 2, "b": None})["score"] == 0.3
    assert len(read_rows(path)) == 3


@pytest.mark.parametrize("name", KEYS)
def test_committed_rows_have_the_fields_of_their_key(name: str) -> None:
    for row in read_rows(RESULTS / f"{name}.jsonl"):
        assert row.keys() >= set(KEYS[name])


def log(out: Path, *lines: dict) -> None:
    out.with_name(f"{out.name}.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )


def share(likelihood: float) -> dict:
    return {"likelihood": likelihood, "exact": likelihood / 2}


PLAN = {
    "model": "m", "tasks": "fact", "length": 100, "documents": 1, "generations": 2, "every": 2,
    "population": 4, "questions": 2,
    "validation": 1, "budgets": "0.5",
}  # fmt: skip


def test_points_are_the_best_so_far_and_zeros_get_the_same_time(tmp_path: Path) -> None:
    """From logs that are there, so that nothing is trained."""
    (tmp_path / "distilled.safetensors.round0").touch()
    (tmp_path / "distilled.safetensors").touch()
    log(tmp_path / "distilled.safetensors", {"round": 1, "cpu_seconds": 10.0})
    for number, reached in ((0, 0.5), (1, 0.7)):
        log(
            tmp_path / f"round{number}.safetensors",
            {"generation": 0, "validation": {"start": share(reached)}},
        )
    after = [{"generation": 1, "cpu_seconds": 4.0}, {"generation": 2, "cpu_seconds": 4.0}]
    evolved = {**after[1], "validation": {"mean": share(0.8), "best": share(0.6)}}
    log(
        tmp_path / "evolved-from-it.safetensors",
        {"generation": 0, "cpu_seconds": 1.0, "validation": {"start": share(0.7)}},
        after[0],
        evolved,
    )
    worse = {"validation": {"mean": share(0.2), "best": share(0.1)}}
    zeros = [
        {"generation": n, "cpu_seconds": 7.0, **(worse if n % 2 == 0 else {})} for n in range(1, 5)
    ]
    log(
        tmp_path / "evolved-from-zeros.safetensors",
        {"generation": 0, "cpu_seconds": 1.0, "validation": {"start": share(0.3)}},
        *zeros,
    )
    found = list(curves._points(tmp_path, curves.Plan(**PLAN)))
    assert [
        (point["curve"], point["step"], point["cpu_seconds"], point["likelihood"])
        for point in found
    ] == [
        (curves.DISTIL, 0, 0.0, 0.5),
        (curves.DISTIL, 1, 10.0, 0.7),
        (curves.EVOLVE, 0, 11.0, 0.7),
        (curves.EVOLVE, 2, 19.0, 0.8),
        (curves.ZEROS, 0, 1.0, 0.3),
        (curves.ZEROS, 2, 15.0, 0.3),
        (curves.ZEROS, 4, 29.0, 0.3),
    ]
    assert [point["exact"] for point in found] == [point["likelihood"] / 2 for point in found]


def test_the_newest_run_is_drawn(tmp_path: Path) -> None:
    points = [
        {
            **PLAN,
            "fingerprint": mark,
            "curve": curves.DISTIL,
            "step": 0,
            "cpu_seconds": 0.0,
            **share(0.5),
        }
        for mark in "aabb"
    ]
    assert curves.newest([]) == []
    assert [point["fingerprint"] for point in curves.newest(points)] == ["b"]
    assert curves.draw(points[-1:], tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_whole_run_on_a_random_model_and_a_second_that_has_nothing_to_do(
    tmp_path: Path, tiny_folder: Path
) -> None:
    plan = {**PLAN, "model": str(tiny_folder), "length": 600, "every": 1, "generations": 1}
    found: list[dict] = []
    first = curves.compare(folder=str(tmp_path / "work"), on_row=found.append, **plan)
    assert first == found
    assert [(point["curve"], point["step"]) for point in found[:6]] == [
        *((curves.DISTIL, step) for step in range(4)),
        *((curves.EVOLVE, step) for step in range(2)),
    ]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert curves.compare(folder=str(tmp_path / "work"), on_row=found.append, **plan) == first
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
