"""One measurement is one flat JSON object; results are lines of them."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def machine() -> Row:
    """What the figures depend on."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }


def append(name: str, rows: list[Row]) -> Path:
    """Add rows to `benchmarks/results/NAME.jsonl`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    with path.open("a") as file:
        for row in rows:
            file.write(json.dumps(row | machine()) + "\n")
    return path


def load(name: str) -> list[Row]:
    """Those of `benchmarks/results/NAME.jsonl`, in the order in which they were added; none if
    there is no such file.
    """
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def find(name: str, key: Row) -> Row | None:
    """The newest row that has all these values."""
    # as they come back from a file
    wanted = json.loads(json.dumps(key)).items()
    return next(
        (row for row in reversed(load(name)) if wanted <= {n: row.get(n) for n in key}.items()),
        None,
    )
