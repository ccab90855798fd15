"""Who evaluates candidates: this process, other processes of this machine, or the machines of a
Ray cluster (`ray_workers.py`).

A job is one document with one batch of cache settings. How candidates are put into batches does not
depend on the workers, so all of them give the same scores, as long as they compute on the same kind
of device with the same number of threads.
"""

from __future__ import annotations

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.documents import EvalDocument
from namm_lab.train.teacher_forcing import teacher_forced_scores
from namm_llm import CacheConfig, NammError
from namm_llm.models.loading import LoadedModel, load_model

OnDone = Callable[[int], None]


@dataclass(frozen=True)
class EvalJob:
    """One document for a batch of cache settings."""

    document: EvalDocument
    configs: tuple[CacheConfig, ...]

    def run(self, model: PreTrainedModel) -> Tensor:
        """Its `teacher_forced_scores`, `[rows, 3]`."""
        return teacher_forced_scores(model, self.document, self.configs)


@dataclass(frozen=True)
class ModelSource:
    """How a worker loads the model."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Of `load_model`."""
    threads: int = 1
    """Of a worker on the CPU."""

    def load(self) -> LoadedModel:
        """The model, in this process."""
        return load_model(self.name, **self.settings)


class Workers(ABC):
    """Does jobs; a context manager that closes itself."""

    @abstractmethod
    def run(self, jobs: Sequence[EvalJob], on_done: OnDone) -> list[Tensor]:
        """Scores `[rows, 3]` of every job, in the order of the jobs. on_done: told how many are
        done.
        """

    @abstractmethod
    def close(self) -> None:
        """End what was started."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class LocalWorker(Workers):
    """This process and its device."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def run(self, jobs: Sequence[EvalJob], on_done: OnDone) -> list[Tensor]:
        scores = []
        for job in jobs:
            scores.append(job.run(self._model))
            on_done(len(scores))
        return scores

    def close(self) -> None:
        """Nothing was started."""


class ProcessWorkers(Workers):
    """`count` processes of this machine, each with a model of its own."""

    def __init__(self, source: ModelSource, count: int) -> None:
        # a fork of a process that has run torch can hang
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(source,))

    def run(self, jobs: Sequence[EvalJob], on_done: OnDone) -> list[Tensor]:
        try:
            scores = []
            for result in self._pool.map(_run, jobs):
                scores.append(result)
                on_done(len(scores))
            return scores
        except BrokenProcessPool as error:
            raise NammError(
                "a worker process died, most likely for lack of memory: the checkpoint is whole, "
                "call again with fewer --workers."
            ) from error

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_SOURCE: list[ModelSource] = []
"""Of a worker process."""


def _begin(source: ModelSource) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    torch.set_num_threads(source.threads)
    _SOURCE.append(source)


@cache
def _model() -> LoadedModel:
    return _SOURCE[0].load()


def _run(job: EvalJob) -> Tensor:
    return job.run(_model().model)
