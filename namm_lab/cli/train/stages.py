"""What the options of `namm-llm train evolve` mean: its settings and stages, and what must stay the
same when a run goes on.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namm_lab.train.evolve_settings import EvolveSettings
    from namm_lab.train.sample_source import SampleSource

TASKS = "fact,values,passages"


def evolve_settings(given: dict[str, Any]) -> EvolveSettings:
    """Only what was given; the rest has its defaults."""
    from namm_lab.train.evolve_settings import EvolveSettings

    names = (
        "generations", "population", "sigma", "budget_scope", "interval", "documents",
        "validation", "validate_every", "patience", "measure", "batch", "seed",
    )  # fmt: skip
    settings = {name: given[name] for name in names if name in given}
    if "budgets" in given:
        settings["budgets"] = tuple(part.strip() for part in given["budgets"].split(","))
    return EvolveSettings(stages=stages_of(given.get("tasks", (TASKS,))), **settings)


def stages_of(tasks: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """`("a,b", "c")` to `(("a", "b"), ("a", "b", "c"))`. UsageError for an unknown task."""
    from namm_lab.tasks import make_task

    known: list[str] = []
    stages = []
    for added in tasks:
        known += [make_task(name.strip()).name for name in added.split(",")]
        stages.append(tuple(dict.fromkeys(known)))
    return tuple(stages)


def identity(
    given: dict[str, Any], settings: EvolveSettings, source: SampleSource
) -> dict[str, Any]:
    """What must not change when a run goes on; how long it takes may."""
    kept = {
        name: value
        for name, value in asdict(settings).items()
        if name not in ("generations", "patience")
    }
    return {
        "model": source.loaded.fingerprint,
        **kept,
        "length": source.lengths,
        "texts": given.get("texts"),
        "questions": source.questions,
    }
