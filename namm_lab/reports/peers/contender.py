"""kvpress as a contender of `run_benchmark`: each round is a job for the worker in the other
environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from namm_lab.bench import Contender, TimedReading
from namm_lab.bench.peers.process import PeerProcess

WORKER = Path(__file__).with_name("worker.py")
PYTHON = Path(".venv-peers", "bin", "python")
PRESSES = ("knorm", "snapkv", "expected")


class Worker(PeerProcess):
    """The other process, with the model loaded. Raises NammError if it fails."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        super().__init__("kvpress", (str(PYTHON), str(WORKER)))
        self.about = self.ask({"do": "load", "folder": folder, "dtype": dtype, "device": device})


class Kvpress:
    """What all presses share: the saved weights, and the worker that lives as long as the timed
    rounds.
    """

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        self._settings = (folder, dtype, device)
        self._worker: Worker | None = None

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        if self._worker is None:
            self._worker = Worker(*self._settings)
        return self._worker.ask(job)

    def ask_apart(self, *jobs: dict[str, Any]) -> dict[str, Any]:
        """The last answer of a process that does only these jobs."""
        worker = Worker(*self._settings)
        try:
            return [worker.ask(job) for job in jobs][-1]
        finally:
            worker.close()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()


class KvpressContender(Contender):
    """One press."""

    def __init__(self, kvpress: Kvpress, press: str, keep: str) -> None:
        """keep: share of the tokens that stays."""
        super().__init__("kvpress", policy=press, budget=keep)
        self._kvpress = kvpress

    def _job(self, batch: int, length: int) -> dict[str, Any]:
        return {
            "do": "read",
            "press": self.policy,
            "keep": float(self.budget or 1),
            "batch": batch,
            "length": length,
        }

    def read(self, model: PreTrainedModel, ids: Any, *, stages: bool = False) -> TimedReading:
        found = self._kvpress.ask(self._job(*ids.shape))
        seconds = found.pop("seconds")
        return TimedReading(
            seconds,
            numbers={name: found[name] for name in ("kept_fraction", "nbytes", "full_nbytes")},
        )

    def decode(self, model: PreTrainedModel, reading: TimedReading, tokens: int) -> float:
        seconds: float = self._kvpress.ask(
            {"do": "decode", "press": self.policy, "tokens": tokens}
        )["seconds"]
        return seconds

    def peak(self, request: dict[str, Any]) -> dict[str, Any]:
        warm = self._job(request["batch"], min(request["length"], 1024))
        return self._kvpress.ask_apart(warm, self._job(request["batch"], request["length"]))
