"""`RunnerPool`: the runners of one model object and its copies, loaded when they are first needed.

Weights are shared with the whole process, and so are runners of equal settings, so that the
prefixes that they keep last.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from namm_integrations.memories import OPEN, is_document

if TYPE_CHECKING:
    from namm_integrations.memories import Memory
    from namm_llm import Document, Runner

_MOST = 8  # sets of settings; every runner keeps the caches of its last prompts
_RUNNERS: WeakValueDictionary[str, Runner] = WeakValueDictionary()
_LOADING = threading.Lock()  # two threads that want the same runner must not make two


class RunnerPool:
    """Any thread may use it. The least recently used runner is forgotten first; copies of a model
    object share it, a pickled one starts without any.
    """

    def __init__(self) -> None:
        self._used: OrderedDict[str, Runner] = OrderedDict()
        self._loaded_with: dict[str, Mapping[str, Any]] = {}

    def runner(self, settings: Mapping[str, Any]) -> Runner:
        """The runner for these arguments of `Runner.load`."""
        from namm_llm import Runner

        key = json.dumps(settings, sort_keys=True, default=_named)
        with _LOADING:
            found = self._used.get(key) or _RUNNERS.get(key) or Runner.load(**settings)
            _RUNNERS[key] = self._used[key] = found
            self._loaded_with[key] = settings  # so that no other object gets the same id
            self._used.move_to_end(key)
            while len(self._used) > _MOST:
                gone, _ = self._used.popitem(last=False)
                del self._loaded_with[gone]
        return found

    def memory(self, settings: Mapping[str, Any], memory: Memory) -> Document | None:
        """The memory; a file or a name is opened with the runner for these settings."""
        if memory is None or is_document(memory):
            return memory
        return OPEN.open(memory, self.runner(settings), self)

    def __len__(self) -> int:
        return len(self._used)

    def __deepcopy__(self, memo: Any) -> RunnerPool:
        return self

    def __reduce__(self) -> tuple[type[RunnerPool], tuple[()]]:
        return RunnerPool, ()


def _named(value: object) -> str:
    return f"{type(value).__name__} {id(value)}"
