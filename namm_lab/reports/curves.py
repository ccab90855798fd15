"""What a minute of training buys: distilling, evolving from what was distilled, and evolving from
zeros for as long as both together.

Everything is done by `namm-llm train`, which says in its logs what each round and each generation
cost. All points are validated on the same documents. What was done lies in a folder, and a run that
was stopped goes on from there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from namm_lab.reports.results import RESULTS
from namm_lab.rows import Row
from namm_llm import Runner
from namm_llm.inspect.figure import legend_below, load_matplotlib, save_figure

PLOT = RESULTS.parent.parent / "docs" / "training.png"
DISTIL, EVOLVE, ZEROS = "distilled", "evolved from it", "evolved from zeros"
COLUMNS = ("curve", "step", "cpu_minutes", "likelihood", "exact")


@dataclass(frozen=True)
class Plan:
    """What is trained, and how much."""

    model: str
    tasks: str
    """Of all documents."""
    length: int
    """Tokens of all documents."""
    documents: int
    """To distil from."""
    generations: int
    """From the distilled NAMM; from zeros, as many as fit into the same time."""
    every: int
    """Generations between two points."""
    population: int
    questions: int
    """About a document."""
    validation: int
    """Documents of each task."""
    budgets: str

    def distil(self) -> list[str]:
        """Options of `train distil`."""
        return _options(
            model=self.model, tasks=self.tasks, length=self.length, documents=self.documents
        )

    def evolve(self, generations: int) -> list[str]:
        """Options of `train evolve`, which validates by them as well."""
        return _options(
            model=self.model,
            tasks=self.tasks,
            length=self.length,
            questions=self.questions,
            population=self.population,
            validation=self.validation,
            validate_every=self.every,
            budgets=self.budgets,
            generations=generations,
            patience=1000,
        )


def _options(**given: object) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in given.items())
    return [part for pair in pairs for part in pair]


def compare(*, folder: str, on_row: Callable[[Row], None], **plan: Any) -> list[Row]:
    """One row for each point, given to `on_row` as soon as it is measured. folder: where NAMMs and
    logs go.

    cpu_seconds: of the process that trains, from the beginning of its curve; an evolution's contain
    its validations, which decide what is kept. likelihood, exact: shares of the full cache's, mean
    over the budgets.
    """
    chosen, at = Plan(**plan), Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    known = {
        **asdict(chosen),
        "model": Path(chosen.model).name,
        "fingerprint": Runner.load(chosen.model).fingerprint,
        "commit": _commit(),
    }
    found = []
    for point in _points(at, chosen):
        found.append(known | point)
        on_row(found[-1])
    return found


def _points(folder: Path, plan: Plan) -> Iterator[Row]:
    cost = 0.0
    for step, cost in _rounds(folder, plan):
        yield {
            "curve": DISTIL,
            "step": step,
            "cpu_seconds": round(cost, 1),
            **_validated(folder, plan, step),
        }
    end = cost
    for point in _evolved(
        folder,
        plan,
        EVOLVE,
        ["--namm", str(_distilled(folder))],
        lambda step, spent: step < plan.generations,
    ):
        end = cost + point["cpu_seconds"]
        yield point | {"cpu_seconds": round(end, 1)}
    yield from _evolved(folder, plan, ZEROS, [], lambda step, spent: spent < end)


# -- distilling ------------------------------------------------------------------------------------


def _rounds(folder: Path, plan: Plan) -> Iterator[tuple[int, float]]:
    """Number and time so far of each round. Round 0 is the NAMM before its first step, which ranks
    tokens as the policy `replay` does.
    """
    begun, out = _round_file(folder, 0), _distilled(folder)
    if not begun.exists():
        least = ("--documents", "1", "--rounds", "1", "--steps", "0")
        _train("distil", "-o", str(begun), *plan.distil(), *least)
    yield 0, 0.0
    if not out.exists():
        _train("distil", "-o", str(out), *plan.distil(), "--keep-rounds")
    cost = 0.0
    for row in _log(out):
        cost += row["cpu_seconds"]
        yield row["round"], cost


def _distilled(folder: Path) -> Path:
    return folder / "distilled.safetensors"


def _round_file(folder: Path, number: int) -> Path:
    out = _distilled(folder)
    return out.with_name(f"{out.name}.round{number}")


def _validated(folder: Path, plan: Plan, number: int) -> Row:
    """An evolution of no generation validates what it starts from."""
    out = folder / f"round{number}.safetensors"
    if not _log(out):
        _train(
            "evolve",
            "-o",
            str(out),
            "--namm",
            str(_round_file(folder, number)),
            *plan.evolve(1),
            "--minutes",
            "0",
        )
    return _shares(_log(out)[0]["validation"]["start"])


# -- evolving --------------------------------------------------------------------------------------


def _evolved(
    folder: Path, plan: Plan, curve: str, start: list[str], goes_on: Callable[[int, float], bool]
) -> Iterator[Row]:
    """The best NAMM so far after every few generations, as long as it `goes_on(generation, CPU
    seconds)`.
    """
    out, done, step, spent = folder / f"{curve.replace(' ', '-')}.safetensors", 0, 0, 0.0
    best: Row | None = None
    while True:
        if not any(row["generation"] >= step for row in _log(out)):
            _train(
                "evolve",
                "-o",
                str(out),
                *start,
                *plan.evolve(max(1, step)),
                *(() if step else ("--minutes", "0")),
            )
        rows = [row for row in _log(out) if row["generation"] <= step]
        spent = sum(row["cpu_seconds"] for row in rows)
        found = [
            _shares(share) for row in rows[done:] for share in row.get("validation", {}).values()
        ]
        best, done = (
            max([*([best] if best else []), *found], key=lambda share: share["likelihood"]),
            len(rows),
        )
        yield {"curve": curve, "step": step, "cpu_seconds": round(spent, 1), **best}
        if not goes_on(step, spent):
            return
        step += plan.every


def _shares(validation: Row) -> Row:
    return {name: validation[name] for name in ("likelihood", "exact")}


# -- commands and their logs -----------------------------------------------------------------------


def _train(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "namm_llm", "train", *arguments], check=True, stdout=sys.stderr
    )


def _log(out: Path) -> list[Row]:
    log = out.with_name(f"{out.name}.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


# -- table and plot --------------------------------------------------------------------------------


def newest(rows: list[Row]) -> list[Row]:
    """Those of the last run, each point once; none of none."""
    if not rows:
        return []
    run = {name: rows[-1][name] for name in ("fingerprint", *Plan.__dataclass_fields__)}
    points = {
        (row["curve"], row["step"]): row for row in rows if {name: row[name] for name in run} == run
    }
    return list(points.values())


def shown(rows: list[Row]) -> list[Row]:
    """What the table has of each point."""
    return [
        {name: row["cpu_seconds"] / 60 if name == "cpu_minutes" else row[name] for name in COLUMNS}
        for row in rows
    ]


def draw(rows: list[Row], path: Path = PLOT) -> Path:
    """Both shares against CPU time, a line for each curve; what is distilled goes on into what
    evolves from it.
    """
    figure, axes = load_matplotlib().subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    _draw_measure(axes[0], "likelihood", "likelihood of the right answers", rows)
    _draw_measure(axes[1], "exact", "exact match", rows)
    legend_below(figure, 4)
    first = rows[0]
    budgets = first["budgets"].replace(",", " and ")
    figure.suptitle(f"{first['model']}: validation at budgets {budgets}, {first['length']} tokens")
    save_figure(figure, path)
    return path


def _draw_measure(axis: Any, measure: str, title: str, rows: list[Row]) -> None:
    for curve, colour in ((DISTIL, "C0"), (EVOLVE, "C1"), (ZEROS, "C2")):
        line = [row for row in rows if row["curve"] == curve]
        minutes = [row["cpu_seconds"] / 60 for row in line]
        shares = [row[measure] for row in line]
        axis.plot(minutes, shares, "o-", color=colour, label=curve, markersize=4)
    axis.axhline(1.0, color="black", linestyle="--", linewidth=1, label="full cache")
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel("CPU minutes of one core")
    axis.set_ylabel("share of the full cache's")
    axis.grid(alpha=0.25)
