"""What each part of a NAMM is worth: each form is distilled anew by `namm-llm train distil` and asked the same questions."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from namm_llm import Evaluation, Runner, evaluate

SLOW = ("--rate", "0.001")  # for attention between tokens
RECIPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "one round": ("--rounds", "1"),
    "two rounds": ("--rounds", "2"),
    "linear": ("--family", "neighbours-linear"),
    "no neighbours": ("--family", "reread"),
    "no neighbours, attention between tokens": ("--family", "reread-attention", *SLOW),
    "published": ("--family", "published", *SLOW),
    "published, mean attention only": ("--family", "published-mean", *SLOW),
    "published, linear": ("--family", "published-linear"),
    "published, no age": ("--family", "published-ageless", *SLOW),
    "published + peak": ("--family", "peak", *SLOW),
    "published + peak + reread + neighbours": ("--family", "all", *SLOW),
}
SETTINGS: dict[str, dict[str, Any]] = {  # of the model's own NAMM
    "shipped": {},
    "shipped, per layer": {"compete": ("layer",)},
    "shipped, per head": {"compete": ("head",)},
    "shipped, 4 sinks": {"sinks": 4},
    "shipped, 64 recent": {"recent": 64},
    "shipped, threshold": {"budgets": ("none",)},
}


def compare(
    *, folder: str, model: str, names: Sequence[str], length: int, budgets: Sequence[str], documents: int, questions: int
) -> list[Row]:
    """One row for each ablation and budget, and those of `reread`. folder: where the NAMMs go; what lies there is not made again."""
    runner = Runner.load(model)
    plain: dict[str, Any] = {"lengths": (length,), "budgets": tuple(budgets), "samples": documents, "questions": questions}
    rows = [row | {"ablation": "reread, no network"} for row in evaluate(runner, Evaluation(policies=("reread",), **plain))]
    for name in names or (*SETTINGS, *RECIPES):
        plan, seconds = Evaluation(policies=("namm",), **plain | SETTINGS.get(name, {})), None
        if name in RECIPES:
            file, seconds = _distilled(Path(folder), model, name)
            plan = replace(plan, namms=(str(file),))
        found = evaluate(runner, plan)[1:]  # the full cache's row comes first and is there already
        rows += [row | {"ablation": name, "namm_file": Path(row["namm_file"]).name, "distil_seconds": seconds} for row in found]
        print(name, [(row["budget"], row["score"]) for row in found], file=sys.stderr, flush=True)
    return rows


def _distilled(folder: Path, model: str, name: str) -> tuple[Path, float | None]:
    """The NAMM's file, and how long it took if it was made now."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.safetensors"
    if file.exists():
        return file, None
    began = time.perf_counter()
    command = [sys.executable, "-m", "namm_llm", "train", "distil", "--model", model, "-o", str(file), *RECIPES[name]]
    subprocess.run(command, check=True)
    return file, round(time.perf_counter() - began, 1)
