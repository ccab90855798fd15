"""What each part of a NAMM is worth: each form is distilled anew by `namm-llm train distil` and
asked the same questions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from namm_lab.evaluate import KEY, Evaluation, evaluate
from namm_lab.rows import Row, RowFile
from namm_llm import Runner

RECIPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "one round": ("--rounds", "1"),
    "two rounds": ("--rounds", "2"),
    # attention between tokens learns more slowly
    "published": ("--family", "published", "--rate", "0.001"),
}
"""Options of `train distil`. Rows of other names are of forms that lost and are gone."""
SETTINGS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "shipped, per layer": {"budget_scope": ("layer",)},
    "shipped, per head": {"budget_scope": ("head",)},
    "shipped, 4 sinks": {"sinks": 4},
    "shipped, no newest tokens": {"protect_recent": 0},
    "shipped, 128 newest tokens": {"protect_recent": 128},
    "shipped, threshold": {"budgets": ("none",)},
}
"""Of the model's own NAMM."""
UNTRAINED = "replay, no network"
NAMES = (UNTRAINED, *SETTINGS, *RECIPES)


def compare(
    *,
    folder: str,
    model: str,
    names: Sequence[str],
    length: int,
    budgets: Sequence[str],
    documents: int,
    questions: int,
    train_documents: int | None,
    again: bool,
    on_row: Callable[[Row], None],
) -> list[Row]:
    """One row for each ablation and budget, and those of `replay`; those of an ablation are given
    to `on_row` as soon as it is measured.

    folder: where the NAMMs and what was measured go; what lies there is taken from there, unless
    `again`. train_documents: to distil from, if not as many as `train distil` takes.
    """
    at = Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    runner, found = Runner.load(model), list[Row]()
    measured = None if again else RowFile(at / "rows.jsonl", KEY)
    plain: dict[str, Any] = {
        "lengths": (length,),
        "budgets": tuple(budgets),
        "samples": documents,
        "questions": questions,
    }
    for name in names or NAMES:
        file = _distilled(at, model, name, train_documents, again) if name in RECIPES else None
        policy = "replay" if name == UNTRAINED else "namm"
        chosen = {**plain, "policies": (policy,), **SETTINGS.get(name, {})}
        plan = Evaluation(**chosen, namms=(str(file),) if file else ())
        for row in evaluate(runner, plan, file=measured):
            if row["policy"] != "full":  # its score is in every row
                found.append({**row, "ablation": name, **_cost(runner, row, file)})
                on_row(found[-1])
    return found


def side_by_side(rows: Sequence[Row]) -> list[Row]:
    """One row for each ablation, with a column for each budget: exact match, the full cache's in
    the last column.
    """
    budgets = sorted(
        {row["budget"] for row in rows if row["budget"] is not None}, key=float, reverse=True
    )
    table: dict[tuple[str, int], Row] = {}
    for row in rows:
        line = table.setdefault(
            (row["ablation"], row["length"]), {"ablation": row["ablation"], "tokens": row["length"]}
        )
        line |= {
            "parameters": row["parameters"],
            "state bytes": row["state_bytes"],
            "distilling, CPU s": row["distil_seconds"],
        }
        line[row["budget"] or "threshold"] = row["score"]
        line |= {"questions": row["samples"], "full cache": row["full_score"]}
    first = ("ablation", "tokens", "parameters", "state bytes", "distilling, CPU s", "questions")
    columns = (
        *first,
        *budgets,
        *(["threshold"] if any(row["budget"] is None for row in rows) else []),
        "full cache",
    )
    return [{column: line.get(column) for column in columns} for line in table.values()]


def _cost(runner: Runner, row: Row, file: Path | None) -> Row:
    """parameters: of the network. state_bytes: of a token in one KV head, its position apart.
    distil_seconds: CPU time of all rounds.
    """
    namm = {"namm": file} if file else {}
    policy = runner.with_cache(row["policy"], budget=row["budget"], **namm).config.policy
    rounds = file.with_name(f"{file.name}.jsonl").read_text().splitlines() if file else []
    return {
        "namm_file": Path(row["namm_file"]).name if row["namm_file"] else None,
        "parameters": policy.namm.theta.numel() if row["policy"] == "namm" else 0,
        "state_bytes": policy.state_width * policy.state_dtype.itemsize,
        "distil_seconds": round(sum(json.loads(line)["cpu_seconds"] for line in rounds), 1)
        if rounds
        else None,
    }


def _distilled(folder: Path, model: str, name: str, documents: int | None, again: bool) -> Path:
    """The NAMM's file; its log lies beside it."""
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.safetensors"
    if again or not file.exists():
        chosen = () if documents is None else ("--documents", str(documents))
        command = [
            sys.executable,
            "-m",
            "namm_llm",
            "train",
            "distil",
            "--model",
            model,
            "-o",
            str(file),
            *RECIPES[name],
            *chosen,
        ]
        subprocess.run([*command, "--force"], check=True, stdout=sys.stderr)
    return file
