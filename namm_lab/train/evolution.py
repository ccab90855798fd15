"""A NAMM evolved: candidates are ranked by how much of the full cache's performance they keep
(arXiv 2410.13166, section 4).

Every candidate of a generation meets the same prompts under several budgets, and so does the full
cache; its fitness is the mean share. Tasks come in stages, each with all tasks of the stage before.
A validation set of fixed prompts decides what is saved and when a stage ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from namm_lab.train.checkpoint import State, WorkFiles
from namm_lab.train.documents import EvalDocument
from namm_lab.train.evolve_settings import EvolveSettings
from namm_lab.train.search import Search, Vector
from namm_lab.train.teacher_forcing import MEASURES
from namm_lab.train.workers import EvalJob, Workers
from namm_llm import CacheConfig, Namm, NammError, make_cache_config


class Draw(Protocol):
    """Where documents come from: the same for the same arguments."""

    def __call__(
        self, split: str, tasks: Sequence[str], seed: int, count: int
    ) -> list[EvalDocument]:
        """`count` documents of each task. split: `train` or `validation`."""
        ...


Report = Callable[[dict[str, Any]], None]
OnDone = Callable[[int, int], None]


class Evolution:
    """The search for the NAMM that keeps most of the full cache's performance."""

    def __init__(
        self,
        start: Namm,
        draw: Draw,
        workers: Workers,
        settings: EvolveSettings,
        *,
        on_done: OnDone = lambda done, total: None,
        finish: Callable[[Namm], Namm] = lambda namm: namm,
    ) -> None:
        """start: where the search begins, with the statistics and settings of every candidate.
        on_done: told the jobs that are done, of all of a generation. finish: makes of the best NAMM
        what is saved; see `set_threshold`.
        """
        self._start = start
        self._draw = draw
        self._workers = workers
        self._settings = settings
        self._on_done = on_done
        self._finish = finish
        self._finished: tuple[Vector, Namm] | None = None

    def run(
        self,
        files: WorkFiles,
        state: State | None = None,
        *,
        report: Report = lambda row: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Namm, State]:
        """Go on from `state`, or begin, until the last stage ends or `stop()`; the best NAMM on
        validation, and where the search stands.

        report: gets the row of every generation, when it is saved.
        """
        while True:
            began = time.perf_counter(), time.process_time()
            if state is None:
                state, row = self._open_stage(0, Search.start(*self._origin()), [self._origin()[0]])
            elif not self._is_over(state):
                if stop():
                    break
                state, row = self._generation(state)
            elif state.stage + 1 < len(self._settings.stages):
                state, row = self._open_stage(
                    state.stage + 1, state.search, [state.best, state.search.mean]
                )
            else:
                break
            row = {
                "stage": state.stage,
                "generation": state.search.generation,
                **_seconds_since(*began),
                **row,
            }
            files.save(state, self._best(state), row)
            report(row)
        return self._best(state), state

    def _best(self, state: State) -> Namm:
        if self._finished is None or self._finished[0] is not state.best:
            self._finished = state.best, self._finish(self._namm(state.best))
        return self._finished[1]

    def _origin(self) -> tuple[Vector, float, int]:
        return (
            self._start.vector.cpu().numpy(),
            self._settings.first_sigma(self._start),
            self._settings.population,
        )

    def _is_over(self, state: State) -> bool:
        return (
            state.stage_generation >= self._settings.generations
            or state.stale >= self._settings.patience
        )

    def _open_stage(
        self, stage: int, search: Search, known: list[Vector]
    ) -> tuple[State, dict[str, Any]]:
        """The best of what is `known`, by the new stage's tasks."""
        state = State(search, stage, 0, known[0], -np.inf)
        shares = self._validate(state, known)
        state = _with_best(state, known, [float(share[self._column]) for share in shares])
        row = {
            "tasks": list(self._settings.stages[stage]),
            "sigma": search.sigma,
            "validation": {"start": _named(shares[0])},
        }
        return state, {**row, "saved": state.best_score}

    def _generation(self, state: State) -> tuple[State, dict[str, Any]]:
        settings, search = self._settings, state.search
        tasks = settings.stages[state.stage]
        documents = self._draw(
            "train", tasks, (settings.seed << 32) + search.generation + 1, settings.documents
        )
        candidates = search.ask(settings.seed)
        fitness = self._shares(list(candidates), documents)[:, self._column].numpy()
        first = int(fitness.argmax())
        lead = float(
            fitness[first] - fitness.mean()
        )  # other generations had other prompts, so only this can be compared with them
        if state.champion is None or lead > state.champion_lead:
            state = replace(state, champion=candidates[first], champion_lead=lead)
        state = replace(
            state,
            search=search.tell(candidates, fitness.tolist()),
            stage_generation=state.stage_generation + 1,
        )
        row: dict[str, Any] = {
            "tasks": list(tasks),
            "evaluations": len(candidates) * len(settings.budgets) * len(documents),
            "fitness_mean": float(fitness.mean()),
            "fitness_best": float(fitness.max()),
            "fitness_std": float(fitness.std()),
            "sigma": state.search.sigma,
        }
        if (
            state.stage_generation % settings.validate_every == 0
            or state.stage_generation == settings.generations
        ):
            state, row["validation"] = self._check(state)
        return state, {**row, "saved": state.best_score}

    def _check(self, state: State) -> tuple[State, dict[str, Any]]:
        """Validate the distribution's mean and the champion since the last time; the better one is
        saved if it is the best so far.
        """
        assert state.champion is not None
        known = [state.search.mean, state.champion]
        shares = self._validate(state, known)
        state = _with_best(state, known, [float(share[self._column]) for share in shares])
        return replace(state, champion=None, champion_lead=0.0), {
            "mean": _named(shares[0]),
            "best": _named(shares[1]),
        }

    def _validate(self, state: State, known: list[Vector]) -> Tensor:
        settings = self._settings
        documents = self._draw(
            "validation", settings.stages[state.stage], settings.seed, settings.validation
        )
        return self._shares(known, documents)

    @property
    def _column(self) -> int:
        return MEASURES.index(self._settings.measure)

    def _shares(self, candidates: list[Vector], documents: Sequence[EvalDocument]) -> Tensor:
        """Shares `[candidates, 3]` of the full cache's scores, mean over tasks and budgets."""
        settings = self._settings
        configs = [config for theta in candidates for config in settings.configs(self._namm(theta))]
        full = make_cache_config("full", interval=settings.interval)
        batches: list[tuple[CacheConfig, ...]] = [(full,)]
        batches += [
            tuple(configs[start : start + settings.batch])
            for start in range(0, len(configs), settings.batch)
        ]
        jobs = [EvalJob(document, batch) for document in documents for batch in batches]
        done = self._workers.run(jobs, lambda done: self._on_done(done, len(jobs)))
        scores = [
            torch.cat(done[start : start + len(batches)])
            for start in range(0, len(done), len(batches))
        ]  # [1 + rows, 3] each
        shares = share_of_full([document.task for document in documents], torch.stack(scores))
        if shares[:, self._column].isnan().any():
            raise NammError(
                f"the full cache scores 0 in every task by the measure {settings.measure}: take a "
                "finer one, or shorter documents."
            )
        return shares.reshape(len(candidates), len(settings.budgets), len(MEASURES)).mean(1)

    def _namm(self, theta: Vector) -> Namm:
        return replace(
            self._start, theta=torch.from_numpy(theta.copy()).to(self._start.theta.device)
        )


def share_of_full(tasks: Sequence[str], scores: Tensor) -> Tensor:
    """`[rows, 3]`: for every measure the mean over the tasks of (a row's score / that of the full
    cache).

    tasks: of each document. scores: `[documents, 1 + rows, 3]`, of the full cache first. Tasks that
    the full cache cannot do at all are left out; not a number where there is no other.
    """
    means = torch.stack(
        [
            scores[[number for number, task in enumerate(tasks) if task == name]].mean(0)
            for name in dict.fromkeys(tasks)
        ]
    )  # [tasks, 1 + rows, 3]
    full = means[:, :1]
    return (means[:, 1:] / full).masked_fill(full == 0, torch.nan).nanmean(0)


def _with_best(state: State, known: list[Vector], scores: list[float]) -> State:
    first = max(range(len(scores)), key=scores.__getitem__)
    if scores[first] > state.best_score:
        return replace(state, best=known[first], best_score=scores[first], stale=0)
    return replace(state, stale=state.stale + 1)


def _seconds_since(wall: float, cpu: float) -> dict[str, float]:
    """cpu_seconds: of this process; workers are processes of their own."""
    return {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }


def _named(share: Tensor) -> dict[str, float | None]:
    return {
        name: None if value.isnan() else round(float(value), 6)
        for name, value in zip(MEASURES, share, strict=True)
    }
