"""A peer as a contender of `run_benchmark`: each round is a job for its process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.bench.contenders import Contender, Numbers, TimedReading, full_nbytes
from namm_lab.bench.peers.process import PeerProcess

TEXT = tuple[str | None, int]
"""Name and length of what is read."""
_MORE = 8
"""Places of a cache beyond text and answer."""


@dataclass(frozen=True)
class Opening:
    """How a peer's process is started and what it loads."""

    name: str
    command: tuple[str, ...]
    model: str
    """The GGUF file, or the folder of its expanded weights."""
    threads: int
    kept: int | None = None
    """Tokens that its own eviction leaves; None without it."""

    def open(self, positions: int) -> tuple[PeerProcess, dict[str, Any]]:
        """The process with the model loaded, and what it told. Raises NammError."""
        process = PeerProcess(self.name, self.command)
        job = {
            "do": "load",
            "model": self.model,
            "threads": self.threads,
            "positions": positions,
            "kept": self.kept,
        }
        try:
            return process, process.ask(job)
        except BaseException:
            process.close()
            raise


class PeerContender(Contender):
    """One peer, with or without its own eviction. Raises NammError if its process fails."""

    def __init__(self, opening: Opening, texts: Mapping[TEXT, Sequence[int]], decoded: int) -> None:
        """texts: ids of everything that will be read. decoded: tokens of a timed decoding."""
        evicts = opening.kept is not None
        super().__init__(
            opening.name,
            policy="eviction" if evicts else "full",
            budget=str(opening.kept) if evicts else None,
        )
        self._opening = opening
        self._texts = texts
        self._decoded = decoded
        most = max(length for _, length in texts) + decoded + _MORE
        self._process, self.about = opening.open(most)
        self.peer = self.about["peer"]

    def close(self) -> None:
        """End its process."""
        self._process.close()

    def read(self, model: PreTrainedModel, ids: Tensor, *, stages: bool = False) -> TimedReading:
        (row,) = ids.tolist()
        found = self._process.ask({"do": "read", "ids": row, "decoded": self._decoded})
        numbers = _numbers(found, len(row), full_nbytes(model, ids))
        return TimedReading(found["seconds"], numbers=numbers)

    def decode(self, model: PreTrainedModel, reading: TimedReading, tokens: int) -> float:
        seconds: float = self._process.ask({"do": "decode", "tokens": tokens})["seconds"]
        return seconds

    def answer(
        self, model: PreTrainedModel, ids: Tensor, tokens: int
    ) -> tuple[list[int], TimedReading]:
        (row,) = ids.tolist()
        found = self._process.ask({"do": "answer", "ids": row, "tokens": tokens})
        numbers = _numbers(found, len(row), full_nbytes(model, ids))
        return found["ids"], TimedReading(found["seconds"], numbers=numbers)

    def peak(self, request: dict[str, Any]) -> Numbers:
        length = request["length"]
        process, _ = self._opening.open(length + self._decoded + _MORE)
        try:
            row = list(self._texts[request["text"], length])
            found = process.ask({"do": "read", "ids": row, "decoded": 0})
        finally:
            process.close()
        numbers = {**_numbers(found, length, None), "seconds": found["seconds"]}
        peak = found["peak_nbytes"]
        return {"peak_nbytes": peak, "before_nbytes": None, "process_nbytes": peak, **numbers}


def _numbers(found: dict[str, Any], length: int, full: int | None) -> Numbers:
    return {"kept_fraction": found["kept"] / length, "nbytes": found["nbytes"], "full_nbytes": full}
