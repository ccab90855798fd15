"""RunnerPool and memories by their settings: made when they are first needed, kept by whoever
asked, weights shared in the process.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from langchain_namm.answering import Session
from namm_llm import Document, Runner, SamplingParams, UsageError

_RUNNERS: WeakValueDictionary[str, Runner] = WeakValueDictionary()
_MAKING = threading.Lock()


class RunnerPool:
    """The runners that one model object and its copies have used; they live as long as it does."""

    def __init__(self) -> None:
        self._used: dict[str, Runner] = {}
        self._memories: dict[tuple[str, str, int], Document[Any, Any]] = {}

    def __deepcopy__(self, memo: Any) -> RunnerPool:
        return self

    def answering(
        self, loading: dict[str, Any], cache: dict[str, Any], memory: Any, sampling: dict[str, Any]
    ) -> Session:
        """What answers with these settings."""
        params = SamplingParams(**sampling)
        if isinstance(memory, Document):
            if cache:
                raise UsageError(
                    f"{next(iter(cache))} is a setting of the memory's own runner; leave it out, or read the document with it."
                )
            return Session(memory.runner, params, memory)
        runner = self._runner(loading, cache)
        return Session(
            runner,
            params,
            None if memory is None else self._memory(runner, loading, cache, Path(memory)),
        )

    def _runner(self, loading: dict[str, Any], cache: dict[str, Any]) -> Runner:
        key = repr((sorted(loading.items()), sorted(cache.items())))
        if key not in self._used:
            with _MAKING:
                found = _RUNNERS.get(key)
                if found is None:
                    found = _RUNNERS[key] = Runner.load(**loading, **cache)
                self._used[key] = found
        return self._used[key]

    def _memory(
        self, runner: Runner, loading: dict[str, Any], cache: dict[str, Any], path: Path
    ) -> Document[Any, Any]:
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        key = (repr((loading, cache)), str(path), changed)
        if key not in self._memories:
            self._memories[key] = runner.open(path)
        return self._memories[key]
