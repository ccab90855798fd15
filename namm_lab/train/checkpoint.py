"""Where an evolution stands, and the files that it leaves: the best NAMM so far, what resuming
needs, and a log.

    OUT        a NAMM file with the best candidate so far, usable at any time
    OUT.work   the search distribution and the rest of the state: 6 vectors of float32, 38 kB for
               1 564 parameters, 100 kB for 4 172
    OUT.jsonl  one JSON line for each generation

Every file is replaced as a whole, after each generation, so that a run can be killed at any moment
and goes on as if it had not been.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from namm_lab.train.search import Search, Vector
from namm_lab.train.training_file import read_training_file, replace_training_file
from namm_llm import Namm, UsageError

VERSION = 1
_HEADER = "namm_evolution"
_NUMBERS = ("stage", "stage_generation", "best_score", "stale", "champion_lead")


@dataclass(frozen=True)
class State:
    """Where an evolution stands."""

    search: Search
    """The distribution."""
    stage: int
    stage_generation: int
    """Generations of this stage so far."""
    best: Vector
    """What is saved, `[P]`."""
    best_score: float
    """Its validation."""
    stale: int = 0
    """Validations in a row that found nothing better."""
    champion: Vector | None = None
    """The candidate since the last validation that was furthest ahead of its generation's mean."""
    champion_lead: float = 0.0
    """How far."""

    @property
    def order(self) -> tuple[int, int]:
        """Stage and generation, which order the log."""
        return self.stage, self.search.generation


class WorkFiles:
    """The three files of one evolution."""

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        """identity: what must be the same for the run to be resumed."""
        self.out = out
        self.work = out.with_name(f"{out.name}.work")
        self.log = out.with_name(f"{out.name}.jsonl")
        self._identity = json.loads(json.dumps(identity))  # as it comes back from a file

    def resume(self) -> tuple[State, Namm] | None:
        """The state of a run that was begun here, and its NAMM; None if there is none. UsageError
        if it was begun with other settings.
        """
        if not self.work.is_file():
            return None
        header, arrays = read_training_file(
            self.work, key=_HEADER, version=VERSION, framework="np", what="an evolution"
        )
        begun = header["identity"]
        for name in sorted({*begun, *self._identity}):
            if begun.get(name) != self._identity.get(name):
                before, now = _shown(begun.get(name)), _shown(self._identity.get(name))
                raise UsageError(
                    f"{self.work} was begun with {name} {before}, not {now}: give the same options "
                    "to go on, --force to start over, or another --out."
                )
        state = _state(header, arrays)
        self._cut_log(state.order)
        return state, Namm.load(self.out)

    def save(self, state: State, namm: Namm, row: Mapping[str, Any]) -> None:
        """After a generation. namm: the best so far."""
        if not self.out.is_file() or Namm.load(self.out) != namm:
            namm.save(self.out)
        with self.log.open("a") as log:
            log.write(json.dumps(row) + "\n")
        # last, because a run that is killed before this repeats the generation
        _write(
            self.work,
            {"version": VERSION, "identity": self._identity, **_numbers(state)},
            _arrays(state),
        )

    def remove(self) -> None:
        """Start over."""
        for path in (self.work, self.log, self.out):
            path.unlink(missing_ok=True)

    def _cut_log(self, order: tuple[int, int]) -> None:
        """Leave out what was logged after the last checkpoint."""
        if not self.log.is_file():
            return
        lines = self.log.read_text().splitlines(keepends=True)
        replace_training_file(
            self.log, "".join(line for line in lines if _order(line) <= order).encode()
        )


def _order(line: str) -> tuple[float, float]:
    try:
        row = json.loads(line)
        return row["stage"], row["generation"]
    except (ValueError, KeyError):  # cut short when the run was killed
        return float("inf"), 0


def _numbers(state: State) -> dict[str, Any]:
    search = {
        "sigma": state.search.sigma,
        "population": state.search.population,
        "generation": state.search.generation,
    }
    return {**{name: getattr(state, name) for name in _NUMBERS}, "search": search}


def _arrays(state: State) -> dict[str, Vector]:
    search = state.search
    arrays = {
        "mean": search.mean,
        "diagonal": search.diagonal,
        "paths": search.paths,
        "best": state.best,
    }
    return arrays if state.champion is None else {**arrays, "champion": state.champion}


def _state(header: Mapping[str, Any], arrays: Mapping[str, Vector]) -> State:
    search = Search(arrays["mean"], arrays["diagonal"], arrays["paths"], **header["search"])
    return State(
        search,
        best=arrays["best"],
        champion=arrays.get("champion"),
        **{name: header[name] for name in _NUMBERS},
    )


def _write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Vector]) -> None:
    replace_training_file(
        path,
        save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            {_HEADER: json.dumps(header)},
        ),
    )


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
