"""The evolution loop on a random model: it improves, stages grow, and a killed run goes on as if it
had not been killed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from namm_lab.train.checkpoint import WorkFiles
from namm_lab.train.evolution import Evolution
from namm_lab.train.evolve_settings import EvolveSettings
from namm_lab.train.workers import LocalWorker
from namm_llm.errors import BudgetError, NammError, UsageError
from namm_llm.namm import Namm
from tests.architectures import random_llama
from tests.cache.test_eviction import random_namm
from tests.lab.train.echo import QUICK, Echo


@pytest.fixture(scope="module")
def llama():
    return random_llama(layers=2)


def start() -> Namm:
    return replace(random_namm(), theta=torch.zeros_like(random_namm().theta))


def evolution(llama, settings: EvolveSettings = QUICK, namm: Namm | None = None) -> Evolution:
    return Evolution(namm or start(), Echo(llama), LocalWorker(llama), settings)


def files(folder: Path, **identity) -> WorkFiles:
    folder.mkdir(exist_ok=True)
    return WorkFiles(folder / "out.safetensors", identity)


def logged(folder: Path) -> list[dict]:
    rows = [
        json.loads(line) for line in (folder / "out.safetensors.jsonl").read_text().splitlines()
    ]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def test_it_improves_and_logs_every_generation(llama, tmp_path):
    settings = replace(QUICK, budgets=("0.3",), generations=6, population=6)
    rows = []
    namm, state = evolution(llama, settings).run(files(tmp_path), report=rows.append)
    assert [row["generation"] for row in rows] == list(range(7))
    assert rows[-1]["saved"] > rows[0]["validation"]["start"]["likelihood"]
    assert Namm.load(tmp_path / "out.safetensors") == namm
    assert torch.equal(namm.theta, torch.from_numpy(state.best))
    assert torch.equal(namm.variance, start().variance)
    assert state.best_score == max(row["saved"] for row in rows) == rows[-1]["saved"]
    for row in rows[1:]:
        assert row["fitness_mean"] <= row["fitness_best"]
        assert row["evaluations"] == 6
    assert [row["generation"] for row in rows[1:] if "validation" in row] == [2, 4, 6]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"out.safetensors{suffix}" for suffix in ("", ".work", ".jsonl")
    }
    assert (tmp_path / "out.safetensors.work").stat().st_size < 110_000


def test_zeros_keep_everything_so_generation_0_is_the_full_cache(llama, tmp_path):
    rows = []
    settings = replace(QUICK, budgets=("threshold",), generations=1)
    evolution(llama, settings, Namm.zeros()).run(files(tmp_path), report=rows.append)
    assert rows[0]["generation"] == 0
    assert rows[0]["validation"]["start"] == pytest.approx(
        {"likelihood": 1.0, "tokens": 1.0, "exact": 1.0}, abs=1e-5
    )
    assert rows[1]["fitness_mean"] < 1.0


class KilledError(Exception):
    """In the place of a signal."""


def killed_at(
    llama, folder: Path, generation: int, *, before_saving: bool, settings: EvolveSettings = QUICK
) -> None:
    given = files(folder, population=4)
    seen = []

    def on_done(done: int, total: int) -> None:
        if before_saving and len(seen) == generation + 1 and done == total:
            raise KilledError

    def report(row: dict) -> None:
        seen.append(row)
        if not before_saving and row["generation"] == generation:
            raise KilledError

    run = Evolution(start(), Echo(llama), LocalWorker(llama), settings, on_done=on_done)
    with pytest.raises(KilledError):
        run.run(given, report=report)


@pytest.mark.parametrize(("generation", "before_saving"), [(0, False), (1, True), (2, False)])
def test_killed_and_resumed_is_as_never_stopped(llama, tmp_path, generation, before_saving):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evolution(llama).run(files(whole, population=4))
    killed_at(llama, parts, generation, before_saving=before_saving)
    resumed = files(parts, population=4).resume()
    assert resumed is not None
    state, namm = resumed
    assert state.search.generation == generation
    evolution(llama, namm=namm).run(files(parts, population=4), state)
    for suffix in ("", ".work"):
        assert (parts / f"out.safetensors{suffix}").read_bytes() == (
            whole / f"out.safetensors{suffix}"
        ).read_bytes()
    assert logged(parts) == logged(whole)


def test_a_log_that_is_ahead_of_the_checkpoint_is_cut(llama, tmp_path):
    evolution(llama, replace(QUICK, generations=1)).run(files(tmp_path))
    expected = logged(tmp_path)
    with (tmp_path / "out.safetensors.jsonl").open("a") as log:
        log.write(json.dumps({"stage": 0, "generation": 2}) + '\n{"stage": 0, "gen')
    files(tmp_path).resume()
    assert logged(tmp_path) == expected


def test_stages_begin_with_the_best_so_far_and_all_tasks(llama, tmp_path):
    settings = replace(QUICK, stages=(("a",), ("a", "b")), generations=2)
    rows, draw = [], Echo(llama)
    _, state = Evolution(start(), draw, LocalWorker(llama), settings).run(
        files(tmp_path), report=rows.append
    )
    assert [(row["stage"], row["generation"], row["tasks"]) for row in rows] == [
        (0, 0, ["a"]), (0, 1, ["a"]), (0, 2, ["a"]), (1, 2, ["a", "b"]), (1, 3, ["a", "b"]),
        (1, 4, ["a", "b"]),
    ]  # fmt: skip
    assert (state.stage, state.stage_generation, state.search.generation) == (1, 2, 4)
    trained = [seed for split, _, seed, _ in draw.log if split == "train"]
    assert len(trained) == len(set(trained)) == 4  # new prompts in every generation
    assert len({seed for split, _, seed, _ in draw.log if split == "validation"}) == 1


def test_it_stops_early_and_when_told(llama, tmp_path):
    settings = replace(QUICK, generations=50, validate_every=1, patience=2, sigma=1e-9)
    _, state = evolution(llama, settings).run(files(tmp_path / "a"))
    assert state.stage_generation < 10
    assert state.stale == 2
    _, state = evolution(llama).run(files(tmp_path / "b"), stop=lambda: True)
    assert state.stage_generation == 0


def test_everything_is_repeatable_and_the_seed_matters(llama, tmp_path):
    results = []
    for number, seed in enumerate((0, 0, 1)):
        evolution(llama, replace(QUICK, generations=1, seed=seed)).run(
            files(tmp_path / str(number))
        )
        results.append(logged(tmp_path / str(number)))
    assert results[0] == results[1] != results[2]


def test_a_checkpoint_of_other_settings_is_refused(llama, tmp_path):
    evolution(llama, replace(QUICK, generations=1)).run(files(tmp_path, population=4, model="a"))
    with pytest.raises(
        UsageError,
        match=r"out\.safetensors\.work was begun with population 4, not 8: give the same options",
    ):
        files(tmp_path, population=8, model="a").resume()
    work = tmp_path / "out.safetensors.work"
    work.write_bytes(work.read_bytes()[:1000])
    with pytest.raises(NammError, match="damaged one"):
        files(tmp_path, population=4, model="a").resume()


def test_a_full_cache_that_cannot_do_the_task_is_an_error(llama, tmp_path):
    class Impossible(Echo):
        def document(self, task, seed):
            document = super().document(task, seed)
            return replace(
                document,
                answers=tuple(tuple(token ^ 1 for token in answer) for answer in document.answers),
            )

    run = Evolution(start(), Impossible(llama), LocalWorker(llama), replace(QUICK, measure="exact"))
    with pytest.raises(
        NammError, match="the full cache scores 0 in every task by the measure exact"
    ):
        run.run(files(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budgets": ("0",)}, BudgetError, "0 is not a budget: give a fraction"),
        ({"budgets": ()}, UsageError, "at least one budget"),
        ({"population": 2}, UsageError, "at least 4 candidates, not 2"),
        ({"sigma": -1.0}, UsageError, "sigma must be above 0"),
        ({"measure": "luck"}, UsageError, "measure must be one of likelihood, tokens, exact"),
        ({"documents": 0}, UsageError, "documents must be 1 or more, not 0"),
        ({"budget_scope": "everybody"}, UsageError, "budget_scope must be one of"),
    ],
    ids=str,
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        EvolveSettings(**{**asdict(QUICK), **settings})


def test_a_distilled_start_takes_small_steps():
    assert EvolveSettings().first_sigma(Namm.zeros()) == 0.065
    assert EvolveSettings().first_sigma(random_namm()) == 0.02
    assert EvolveSettings(sigma=0.5).first_sigma(random_namm()) == 0.5
    assert np.isfinite(EvolveSettings().first_sigma(start()))


def test_what_is_saved_is_finished_and_the_search_goes_on_without(llama, tmp_path):
    plain, state = evolution(llama).run(files(tmp_path / "plain"))
    found = Evolution(
        start(), Echo(llama), LocalWorker(llama), QUICK, finish=lambda namm: namm.with_zero_at(1.0)
    )
    finished, same = found.run(files(tmp_path / "finished"))
    assert Namm.load(files(tmp_path / "finished").out) == finished == plain.with_zero_at(1.0)
    assert (same.best == state.best).all()
