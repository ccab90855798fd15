"""Peak memory of one reading, in a process of its own: a request on stdin, the answer on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

from namm_lab.bench.contenders import Numbers
from namm_lab.bench.machine import peak_nbytes, start_peak
from namm_lab.bench.model import load
from namm_lab.bench.plan import Benchmark, Cell
from namm_llm import NammError

# as the command starts
_CODE = f"""
import sys
from namm_llm.__main__ import WithoutTriton
sys.meta_path.insert(0, WithoutTriton())
from {__name__} import answer
answer()
"""


def measure_apart(plan: Benchmark, cell: Cell, contender: int) -> Numbers:
    """Numbers of the plan's contender of that number: peak_nbytes, before_nbytes, and of the cache.

    Raises NammError if the process fails.
    """
    request = json.dumps({"plan": asdict(plan), "cell": asdict(cell), "contender": contender})
    done = subprocess.run(
        [sys.executable, "-c", _CODE], input=request, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        last = (
            lines[-1]
            if lines
            else f"exit code {done.returncode}; the system may have ended it for want of memory"
        )
        raise NammError(f"the measurement of memory at {cell.length} tokens failed: {last}")
    found: Numbers = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(request: dict[str, Any]) -> Numbers:
    settings: Any = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in request["plan"].items()
    }
    plan = Benchmark(**settings)
    cell, contender = Cell(**request["cell"]), plan.contenders()[request["contender"]]
    model = load(plan, cell.quantization)
    # what a first call gets from the system for good belongs to the program, not to the length
    contender.read(
        model.model, model.ids(replace(cell, length=min(cell.length, 2 * plan.interval)))
    )
    loading = peak_nbytes(model.device)
    before = start_peak(model.device)
    reading = contender.read(model.model, model.ids(cell))
    peak = peak_nbytes(model.device)
    return {
        "peak_nbytes": peak,
        "before_nbytes": before,
        "process_nbytes": None if peak is None else max(peak, loading or 0),
        **reading.numbers,
        "seconds": reading.seconds,
    }


def answer() -> None:
    """Measure what stdin asks for, and print it."""
    try:
        print(json.dumps(_measure(json.load(sys.stdin))))
    except NammError as error:
        sys.exit(str(error))
