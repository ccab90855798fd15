"""The runners of one LLM: loaded when they are first asked for, one for each set of settings, so
that its kept prefixes last.

Weights are shared with the whole process by `Runner.load`. Copies of an LLM share its runners; a
pickled one starts without any.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namm_llm import Document, Runner

_MOST = 8  # sets of settings; every runner keeps the caches of its last prompts


class RunnerPool:
    """May be used by any thread. The least recently used runner is forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # two threads that want the same runner must not make two
        self._runners: OrderedDict[str, Runner] = OrderedDict()
        self._memories: dict[tuple[str, str, int], Document[Any, Any]] = {}

    def get(self, settings: Mapping[str, Any]) -> Runner:
        """The runner for these arguments of `Runner.load`."""
        from namm_llm import Runner  # imports torch

        key = _key(settings)
        with self._lock:
            if key not in self._runners:
                self._runners[key] = Runner.load(**settings)
            self._runners.move_to_end(key)
            while len(self._runners) > _MOST:
                gone, _ = self._runners.popitem(last=False)
                self._memories = {
                    at: memory for at, memory in self._memories.items() if at[0] != gone
                }
            return self._runners[key]

    def memory(
        self, settings: Mapping[str, Any], path: str | os.PathLike[str]
    ) -> Document[Any, Any]:
        """A saved memory, opened once with the runner for these settings, and again when its file
        has changed.
        """
        runner = self.get(settings)
        file = Path(path)
        key = (
            _key(settings),
            str(file.absolute()),
            file.stat().st_mtime_ns if file.is_file() else 0,
        )
        with self._lock:
            found = self._memories.get(key)
        if found is None:
            found = runner.open(file)
            with self._lock:
                self._memories[key] = found
        return found

    def __reduce__(self) -> tuple[type[RunnerPool], tuple[()]]:
        return RunnerPool, ()


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=str)
