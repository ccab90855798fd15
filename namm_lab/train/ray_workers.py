"""Candidates spread over the cores, cards or machines of a Ray cluster.

Each worker is a Ray actor that loads the model once. Ray restarts an actor that died, on another
machine if need be, and gives it its job again: jobs are pure, so nothing is lost and nothing
changes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from namm_lab.train.workers import EvalJob, ModelSource, OnDone, Workers
from namm_llm import NammError, UsageError
from namm_llm.models.loading import LoadedModel


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(self, source: ModelSource) -> None:
        torch.set_num_threads(source.threads)
        self._source = source
        self._loaded: LoadedModel | None = None

    def run(self, number: int, job: EvalJob) -> tuple[int, Tensor]:
        if self._loaded is None:  # not in __init__, so that what goes wrong comes back as it is
            self._loaded = self._source.load()
        return number, job.run(self._loaded.model)

    def pid(self) -> int:
        return os.getpid()


class RayWorkers(Workers):
    """One worker for each GPU of the cluster, or for each `threads` cores if it has none.

    Goes to the running cluster (`ray start`, RAY_ADDRESS) if there is one, else it starts one on
    this machine. The model must have the same name on every machine: a Hugging Face id, or a folder
    that all of them see.
    """

    def __init__(self, source: ModelSource, count: int | None = None) -> None:
        ray = self._ray = _library()
        self._owned = not ray.is_initialized()
        if self._owned:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = count or gpus or max(1, int(resources.get("CPU", 1)) // source.threads)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": source.threads}
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **needs)(_Actor)
        self._actors = [actor.remote(source) for _ in range(count)]

    def run(self, jobs: Sequence[EvalJob], on_done: OnDone) -> list[Tensor]:
        waiting, scores = list(enumerate(jobs)), dict[int, Tensor]()
        running: dict[Any, Any] = {}
        free = list(self._actors)
        while len(scores) < len(jobs):
            while waiting and free:
                actor = free.pop()
                running[actor.run.remote(*waiting.pop(0))] = actor
            done, _ = self._ray.wait(list(running))
            for reference in done:
                free.append(running.pop(reference))
                number, result = self._get(reference)
                scores[number] = result
                on_done(len(scores))
        return [scores[number] for number in range(len(jobs))]

    def _get(self, reference: Any) -> tuple[int, Tensor]:
        try:
            number, result = self._ray.get(reference)
            return number, result
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error  # as it would be without Ray
        except self._ray.exceptions.RayError as error:
            raise NammError(
                f"a Ray worker failed ({str(error).strip().splitlines()[-1]}); the checkpoint is "
                "whole, call again."
            ) from error

    def pids(self) -> list[int]:
        """Process id of every worker, on its own machine."""
        return [int(self._ray.get(actor.pid.remote())) for actor in self._actors]

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._owned:
            self._ray.shutdown()


def _library() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--workers ray needs Ray: pip install 'namm-llm[lab]'.") from error
    return ray
