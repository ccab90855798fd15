"""Who examines candidates: this process, other processes of this machine, or the machines of a Ray
cluster (`ray_workers.py`).

A job is one exam with one batch of eviction settings. How candidates are put into batches does not
depend on the workers, so all of them give the same marks, as long as they compute on the same kind
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

from namm_lab.train.exams import Exam
from namm_lab.train.marks import marks
from namm_llm.config import CacheConfig
from namm_llm.errors import NammError
from namm_llm.models.loading import LoadedModel, load_model

OnDone = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """One exam for a batch of eviction settings."""

    exam: Exam
    evictions: tuple[CacheConfig, ...]


@dataclass(frozen=True)
class ModelSource:
    """How a worker comes by the model: its name and the settings of `load_model`. threads: of a
    worker on the CPU.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    def load(self) -> LoadedModel:
        """The model, in this process."""
        return load_model(self.name, **self.settings)


class Workers(ABC):
    """Does jobs. To be closed after use, which `with` does."""

    @abstractmethod
    def run(self, jobs: Sequence[Job], on_done: OnDone) -> list[Tensor]:
        """Marks `[rows, 3]` of every job, in the order of the jobs. on_done: told how many are
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

    def run(self, jobs: Sequence[Job], on_done: OnDone) -> list[Tensor]:
        found = []
        for job in jobs:
            found.append(marks(self._model, job.exam, job.evictions))
            on_done(len(found))
        return found

    def close(self) -> None:
        """Nothing was."""


class ProcessWorkers(Workers):
    """`count` processes of this machine, each with a model of its own."""

    def __init__(self, source: ModelSource, count: int) -> None:
        context = multiprocessing.get_context(
            "spawn"
        )  # a fork of a process that has run torch can hang
        self._pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(source,))

    def run(self, jobs: Sequence[Job], on_done: OnDone) -> list[Tensor]:
        try:
            found = []
            for result in self._pool.map(_examine, jobs):
                found.append(result)
                on_done(len(found))
            return found
        except BrokenProcessPool as error:
            raise NammError(
                "a worker process died, most likely for lack of memory: the checkpoint is whole, call again with fewer --workers"
            ) from error

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_SOURCE: list[ModelSource] = []  # of a worker process


def _begin(source: ModelSource) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    torch.set_num_threads(source.threads)
    _SOURCE.append(source)


@cache
def _model() -> LoadedModel:
    return _SOURCE[0].load()


def _examine(job: Job) -> Tensor:
    return marks(_model().model, job.exam, job.evictions)
