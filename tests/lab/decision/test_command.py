"""The command: a table of returns, and what a cache held of an episode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from namm_lab.decision.command import main
from namm_lab.decision.environments import CARTPOLE, TMAZE
from namm_lab.decision.table import contenders, mean_interval
from namm_lab.decision.training import Recipe, new_model, train
from namm_lab.train.families import FAMILIES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that have learnt nothing."""
    folder = tmp_path_factory.mktemp("models")
    for task in (TMAZE, CARTPOLE):
        new_model(task, Recipe(0, 0, hidden=32)).save_pretrained(folder / task.name)
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    if done.exit_code == 1 and done.exception is not None:
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_table_has_the_full_cache_first_and_every_contender_at_every_budget(models, tmp_path):
    FAMILIES["universal"].save(tmp_path / "n.safetensors")
    code, out, err = run(
        "table", "--models", models, "--tasks", "tmaze", "--policies", "recency", "--episodes",
        1, "--budgets", "0.5,0.25", "--namm", f"zeros={tmp_path / 'n.safetensors'}",
    )  # fmt: skip
    assert (code, err) == (0, "")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["tmaze", "full", ""],
        *(
            ["tmaze", policy, budget]
            for policy in ("recency", "NAMM zeros")
            for budget in ("0.5", "0.25")
        ),
    ]
    assert rows[0][6] == "100%"
    assert all(0 < int(row[6].rstrip("%")) < 70 for row in rows[1:])


def test_recency_has_no_sinks():
    config = contenders(["recency"], [])[0].config("0.25")
    assert (config.policy.name, config.sinks) == ("streaming_llm", 0)


def test_an_interval_of_equal_returns_is_not_empty():
    low, high = mean_interval([1.0] * 100)
    assert (round(low, 3), high) == (0.926, 1.0)
    assert mean_interval([60.0] * 9) == (60.0, 60.0)


def test_an_episode_as_rows_a_page_and_a_strip(models, tmp_path):
    out, png = tmp_path / "episode.html", tmp_path / "episode.png"
    options = ["--models", models, "--policy", "streaming_llm", "--seed", 7]
    code, printed, err = run("inspect", *options, "--json", "-o", out, "--png", png)
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in printed.splitlines()]
    kinds = {row["kind"]: row["tokens"] for row in rows if row["part"] == "kind"}
    assert kinds["action"] == kinds["return"] - 1
    assert sum(kinds.values()) == rows[0]["tokens"] == 3 * kinds["return"] - 1
    assert kinds["state with the cue"] >= 1
    assert "cue" in out.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table", "--tasks", "chess"], "there is no task 'chess'; there are tmaze, cartpole."),
        (["table", "--namm", "file"], "--namm takes LABEL=FILE, not 'file'."),
        (["inspect", "--policy", "replay"], "policy replay needs rotary positions (RoPE)"),
    ],
)
def test_what_a_user_can_get_wrong(models, arguments, says):
    code, _, err = run(*arguments, "--models", models)
    assert code == 2
    assert says in err


def test_training_learns_to_go_forward():
    losses = []
    recipe = Recipe(episodes=30, steps=40, batch=8, hidden=32)
    train(TMAZE, recipe, lambda step, loss, seconds: losses.append(loss))
    other = []
    train(TMAZE, recipe, lambda step, loss, seconds: other.append(loss))
    assert losses == other
    assert losses[0] < 0.9
