"""The first token about a document: from its saved memory, and from reading it again. One process,
the model loaded before.

Figures are medians of runs in turn. ratio: seconds of reading and asking over seconds of opening
and asking. cpu_ratio: the same in processor time of the whole process, which other programs disturb
less. file_ratio: bytes of the file over bytes of the cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from namm_lab.rows import Row
from namm_lab.tasks import draw_samples
from namm_llm import Document, Runner


def compare(*, model: str, length: int, budget: str, runs: int) -> list[Row]:
    """One row, for a document of the task `fact` with about `length` tokens."""
    runner = Runner.load(model, budget=budget)
    sample = draw_samples("fact", length, count_tokens=runner.count_tokens)[0]
    question = sample.questions[0].prompt
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "document.namm"
        read: list[tuple[float, float]] = []
        opened: list[tuple[float, float]] = []
        for _ in range(runs):
            memory, times = _first_token(lambda: runner.read(sample.document), question)
            read.append(times)
            memory.save(path)
            opened.append(_first_token(lambda: runner.open(path), question)[1])
        file_nbytes = path.stat().st_size
    (seconds, cpu_seconds), (read_seconds, read_cpu_seconds) = map(_medians, (opened, read))
    info = memory.info()
    return [
        {
            "measure": "first_token",
            "model": model,
            "policy": info["policy"],
            "tokens": info["seen_tokens"],
            "runs": runs,
            "ratio": read_seconds / seconds,
            "cpu_ratio": read_cpu_seconds / cpu_seconds,
            "seconds": seconds,
            "read_seconds": read_seconds,
            "cpu_seconds": cpu_seconds,
            "read_cpu_seconds": read_cpu_seconds,
            "file_ratio": file_nbytes / info["nbytes"],
            "file_nbytes": file_nbytes,
            "nbytes": info["nbytes"],
        }
    ]


def _first_token(
    get: Callable[[], Document], question: str
) -> tuple[Document, tuple[float, float]]:
    """The document, and seconds and processor seconds up to the first token of an answer."""
    start, cpu_start = time.perf_counter(), time.process_time()
    memory = get()
    with memory.stream(question, max_tokens=1) as stream:
        for _ in stream:
            pass
    return memory, (time.perf_counter() - start, time.process_time() - cpu_start)


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    return median(seconds for seconds, _ in times), median(cpu for _, cpu in times)
