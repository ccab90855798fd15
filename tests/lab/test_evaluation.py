"""Evaluation on a tiny random model: what is measured, that it is right, and that it is not
measured twice.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from namm_lab.evaluate import (
    KEY,
    Evaluation,
    Measurement,
    draw_scores,
    evaluate,
    label_of,
    measure,
    says_nothing,
)
from namm_lab.evaluate.intervals import interval
from namm_lab.evaluate.reader import read_agnostic, read_aware, read_continuation
from namm_lab.rows import RowFile
from namm_lab.tasks import draw_samples
from namm_llm import Namm, Runner
from namm_llm.errors import BudgetError, ContextError, NammError, PolicyError, UsageError
from namm_llm.models.prompt import PromptFormat

# text that goes on needs no decoding, so it is fast
PLAN = Evaluation(
    ("prose",), (200,), ("h2o", "streaming_llm"), ("0.5", "60"), interval=32, samples=2, questions=2
)


@pytest.fixture(scope="module")
def runner(tiny_folder: Path) -> Runner:
    return Runner.load(tiny_folder, prefix_caches=0)


def sample(runner: Runner, task: str, length: int = 300, questions: int = 2):
    (drawn,) = draw_samples(
        task, length, count_tokens=lambda text: len(runner.encode(text)), questions=questions
    )
    return replace(
        drawn, questions=tuple(replace(question, max_tokens=5) for question in drawn.questions)
    )


# -- rows ------------------------------------------------------------------------------------------


def test_one_row_for_each_setting_after_the_full_cache(runner: Runner) -> None:
    rows = evaluate(runner, replace(PLAN, tasks=("fact",), questions=1))
    assert [(row["policy"], row["budget"]) for row in rows] == [
        ("full", None), ("h2o", "0.5"), ("h2o", "60"), ("streaming_llm", "0.5"),
        ("streaming_llm", "60"),
    ]  # fmt: skip
    full, half, sixty = rows[:3]
    assert full["kept_fraction"] == 1.0
    assert full["nbytes"] >= full["full_nbytes"]
    assert half["kept_fraction"] == pytest.approx(0.5, abs=0.02)
    assert sixty["kept_fraction"] == pytest.approx(60 / sixty["tokens"], abs=0.01)
    assert half["nbytes"] < 0.6 * full["nbytes"]
    for row in rows:
        assert (row["task"], row["length"], row["mode"], row["documents"], row["samples"]) == (
            "fact",
            200,
            "agnostic",
            2,
            2,
        )
        assert row["full_score"] == full["score"]
        assert row["low"] <= row["score"] <= row["high"]
        assert row["tokens"] == pytest.approx(200, rel=0.1)
        assert row["full_nbytes"] == full["full_nbytes"]
        json.dumps(row)


def test_rows_that_are_there_are_not_measured_again(runner: Runner, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = evaluate(runner, PLAN, file=RowFile(path, KEY))
    written = path.read_bytes()
    assert evaluate(runner, PLAN, file=RowFile(path, KEY)) == first  # the seconds as well
    assert path.read_bytes() == written
    more = replace(PLAN, policies=("streaming_llm", "random", "h2o"))
    rows = evaluate(runner, more, file=RowFile(path, KEY))
    assert len(path.read_text().splitlines()) == 7
    assert [row for row in rows if row["policy"] in ("streaming_llm", "h2o", "full")] == [
        first[0],
        *first[3:],
        *first[1:3],
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"questions": 1},
        {"samples": 1},
        {"interval": 16},
        {"sinks": 2},
        {"protect_recent": 9},
        {"split": "train"},
        {"modes": ("aware",)},
    ],
)
def test_other_settings_are_other_rows(runner: Runner, tmp_path: Path, change: dict) -> None:
    plan = replace(PLAN, policies=("h2o",), budgets=("0.5",), tasks=("passages",), lengths=(100,))
    evaluate(runner, plan, file=RowFile(tmp_path / "rows.jsonl", KEY))
    before = len((tmp_path / "rows.jsonl").read_text().splitlines())
    evaluate(runner, replace(plan, **change), file=RowFile(tmp_path / "rows.jsonl", KEY))
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == before + (
        1
        if change.keys() & {"interval", "sinks", "protect_recent"}
        else 2  # the full cache's row is the same
    )


def test_a_row_that_was_cut_short_is_measured_again_and_what_was_done_is_kept(
    runner: Runner, tmp_path: Path
) -> None:
    path, plan = tmp_path / "rows.jsonl", replace(PLAN, budgets=("0.5",))
    evaluate(runner, plan, file=RowFile(path, KEY))
    *whole, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole) + last[:40])
    evaluate(runner, plan, file=RowFile(path, KEY))
    again = path.read_text().splitlines(keepends=True)
    assert again[:-1] == whole
    assert {name: value for name, value in json.loads(again[-1]).items() if name != "seconds"} == {
        name: value for name, value in json.loads(last).items() if name != "seconds"
    }


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary,\nall is well.\n")
    with pytest.raises(UsageError, match="line 1 is no JSON object"):
        RowFile(path, KEY)
    assert path.read_text() == "Dear diary,\nall is well.\n"
    with pytest.raises(UsageError, match="cannot be written"):
        RowFile(tmp_path / "nowhere" / "rows.jsonl", KEY)


def test_namm_files_are_compared_by_name_and_with_their_own_threshold(
    runner: Runner, tmp_path: Path
) -> None:
    zeros = Namm.zeros()
    files = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    zeros.save(files[0])
    Namm.from_vector(zeros.vector + 0.1, zeros.mean, zeros.variance).save(files[1])
    rows = evaluate(
        runner, replace(PLAN, policies=("namm", "h2o"), budgets=("0.5", "none"), namms=tuple(files))
    )
    assert [(label_of(row, rows), row["budget"]) for row in rows] == [
        ("full", None), (f"namm ({files[0]})", "0.5"), (f"namm ({files[0]})", None),
        (f"namm ({files[1]})", "0.5"), (f"namm ({files[1]})", None), ("h2o", "0.5"),
    ]  # fmt: skip
    assert rows[1]["namm"] != rows[3]["namm"]
    assert "threshold 0" in rows[2]["cache"]


# -- how it is measured ----------------------------------------------------------------------------


def test_perplexity_is_that_of_the_plain_model(runner: Runner) -> None:
    text = sample(runner, "prose")
    prompts = PromptFormat(runner.loaded.tokenizer, runner.loaded.backend, runner.model_id)
    ids, rest = prompts.prompt(text.document), prompts.encode(text.questions[0].answer)
    with torch.no_grad():
        logits = runner.loaded.model(torch.tensor([ids + rest]), use_cache=False).logits[
            0, len(ids) - 1 : -1
        ]
    wanted = logits.log_softmax(-1)[torch.arange(len(rest)), torch.tensor(rest)].mean().exp()
    found = read_continuation(runner, text)
    assert found.scores == pytest.approx([float(wanted)], rel=1e-3)
    for budget_scope in ("head", "model"):
        evicting = read_continuation(
            runner.with_cache("streaming_llm", budget=0.25, interval=64, budget_scope=budget_scope),
            text,
        )
        assert evicting.scores != pytest.approx(found.scores, rel=1e-3)
        assert evicting.stats[0].kept_fraction == pytest.approx(0.25, abs=0.01)
        assert evicting.stats[0].seen_tokens == len(ids) - 1


def test_with_the_full_cache_both_modes_give_the_same_replies(runner: Runner) -> None:
    asked = sample(runner, "fact")
    prompts = PromptFormat(runner.loaded.tokenizer, runner.loaded.backend, runner.model_id)
    memory = runner.read(asked.document)
    said = [memory.ask(question.prompt, max_tokens=5).text for question in asked.questions]
    pairs = zip(asked.questions, said, strict=True)
    taught = replace(
        asked,
        questions=tuple(
            replace(q, expected=(reply,), metric="string_match_part") for q, reply in pairs
        ),
    )
    assert read_agnostic(runner, taught).scores == [1.0, 1.0]
    aware = read_aware(runner, taught)
    assert aware.scores == [1.0, 1.0]
    lengths = [
        len(prompts.document(asked.document)) + len(prompts.question(question.prompt)) - 1
        for question in asked.questions
    ]
    assert [stats.seen_tokens for stats in aware.stats] == lengths


def test_in_mode_aware_the_question_takes_part_in_the_last_update(runner: Runner) -> None:
    asked = sample(runner, "fact", questions=1)
    evicting = runner.with_cache("snapkv", budget=0.25, interval=64)
    before, after = read_agnostic(evicting, asked).stats[0], read_aware(evicting, asked).stats[0]
    assert after.seen_tokens > before.seen_tokens
    assert after.kept_fraction == pytest.approx(0.25, abs=0.02)
    assert after.eviction_steps == after.seen_tokens // 64 + 1


def test_scores_and_likelihoods_have_their_own_mean(runner: Runner) -> None:
    stats = runner.read("A text.").cache.stats()
    shares = Measurement((1.0, 0.5, 0.0), False, (stats,), 1.0)
    assert (shares.score, shares.whole) == (0.5, 1 / 3)
    likelihoods = Measurement((0.1, 0.4), True, (stats, stats), 1.0)
    assert likelihoods.score == pytest.approx(0.2)
    assert likelihoods.interval == pytest.approx((0.1, 0.4))
    assert likelihoods.mean("seen_tokens") == stats.seen_tokens


def test_intervals() -> None:
    assert interval([1.0] * 8 + [0.0] * 2) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval([1.0] * 20)[0] == pytest.approx(0.8389, abs=1e-4)
    low, high = interval([0.2, 0.5, 0.9, 0.4])
    assert 0.2 < low < 0.5 < high < 0.9
    assert interval([0.2, 0.5, 0.9, 0.4]) == (low, high)


# -- what a user can get wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tasks": ("facts",)}, UsageError, "did you mean fact"),
        ({"tasks": ()}, UsageError, "nothing to measure without tasks"),
        ({"policies": ("h20",)}, PolicyError, "did you mean h2o"),
        ({"budgets": ("lots",)}, BudgetError, "'lots' is not a budget"),
        ({"budgets": ("none",)}, PolicyError, "policy h2o needs a budget"),
        ({"modes": ("both",)}, UsageError, "mode must be one of agnostic, aware, not 'both'"),
        ({"split": "dev"}, UsageError, "split must be one of"),
        ({"least_full": 70.0}, UsageError, "least_full must be from 0 to 1, not 70"),
        ({"lengths": (0,)}, UsageError, "1 token or more"),
        ({"budget_scope": ("all",)}, UsageError, "budget_scope must be one of"),
    ],
    ids=str,
)
def test_a_wrong_plan_is_refused_before_a_model_is_needed(
    change: dict, error: type[NammError], message: str
) -> None:
    with pytest.raises(error, match=message):
        replace(PLAN, **change)


def test_what_the_model_cannot_do_is_refused(runner: Runner) -> None:
    with pytest.raises(PolicyError, match="policy namm needs a trained NAMM"):
        evaluate(runner, replace(PLAN, policies=("namm",)))
    with pytest.raises(ContextError, match="was trained on 4096: ask for a shorter length"):
        evaluate(runner, replace(PLAN, lengths=(4090,)))
    with pytest.raises(UsageError, match="no mode aware"):
        evaluate(runner, replace(PLAN, tasks=("prose",), modes=("aware",)))
    with pytest.raises(UsageError, match="no mode aware"):
        measure(runner, [sample(runner, "prose")], "aware")


def test_the_plot_has_a_picture_for_each_task(runner: Runner, tmp_path: Path) -> None:
    rows = evaluate(
        runner,
        replace(PLAN, tasks=("passages", "prose"), policies=("h2o",), samples=1, questions=1),
    )
    draw_scores(rows, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.count('<g id="axes_') == 2
    with pytest.raises(UsageError, match="cannot be drawn"):
        draw_scores(rows, tmp_path / "nowhere" / "plot.svg")


def test_a_plot_without_matplotlib_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(NammError, match=r"pip install 'namm-llm\[plots\]'"):
        draw_scores([], "plot.png")


def test_where_the_full_cache_fails_a_task_says_nothing_and_can_be_left_out(runner: Runner) -> None:
    plan = replace(PLAN, tasks=("fact", "prose"), policies=("h2o",), budgets=("0.5",))
    seen: list[tuple[int, int]] = []
    shorter = replace(plan, least_full=0.7)
    rows = evaluate(runner, shorter, on_row=lambda row, *at: seen.append(at))
    assert [(row["task"], row["policy"]) for row in rows] == [
        ("fact", "full"),  # random weights answer nothing
        ("prose", "full"),  # a perplexity has no such bound
        ("prose", "h2o"),
    ]
    assert [says_nothing(row) for row in rows] == [True, False, False]
    assert seen[-1] == (3, 3)
    assert len(evaluate(runner, plan)) == 4
    assert [says_nothing({"full_score": score}) for score in (0.69, 0.7)] == [True, False]


def test_a_full_score_of_zero_has_no_share(runner: Runner) -> None:
    rows = evaluate(
        runner, replace(PLAN, tasks=("passages",), policies=("h2o",), budgets=("0.5",), samples=1)
    )
    assert rows[0]["score"] == 0.0
    assert rows[1]["share"] is None
    assert math.isfinite(rows[1]["high"])
