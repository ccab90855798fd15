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
