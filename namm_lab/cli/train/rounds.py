"""What is written down of each round of distilling."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namm_llm import Namm


class RoundFiles:
    """`OUT.jsonl`, one line for each round; keep: `OUT.roundN` as well, the NAMM of each. A log of
    an earlier run is replaced.
    """

    def __init__(self, out: Path, *, keep: bool) -> None:
        self._out = out
        self._keep = keep
        self._log = out.with_name(f"{out.name}.jsonl")
        self._row: dict[str, float] = {}
        self._began = time.perf_counter(), time.process_time()

    def note(self, row: dict[str, float]) -> None:
        """What is known of the running round."""
        self._row = row

    def close(self, number: int, namm: Namm) -> None:
        """Round `number` (from 1) has ended with this NAMM."""
        now = time.perf_counter(), time.process_time()
        seconds, cpu_seconds = (
            round(after - before, 3) for before, after in zip(self._began, now, strict=True)
        )
        if self._keep:
            namm.save(self._out.with_name(f"{self._out.name}.round{number}"))
        with self._log.open("w" if number == 1 else "a") as log:
            log.write(
                json.dumps(
                    {"round": number, **self._row, "seconds": seconds, "cpu_seconds": cpu_seconds}
                )
                + "\n"
            )
        self._began = time.perf_counter(), time.process_time()
