"""Memories that a model object is given: what they are known by, and `OpenMemories`, those that
were opened from files, within a limit in bytes.

Files are known by what they hold and not by their names, living documents by what was read and not
by their address. There is one `OpenMemories` for the process (`OPEN`), so that both adapters and
all their objects share the limit.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from namm_llm import DocumentError, MemoryStore, UsageError, parse_budget, read_header

if TYPE_CHECKING:  # these import torch, which takes seconds
    from namm_llm import Document, Runner

    Memory = Document | str | os.PathLike[str] | None

LIMIT_VARIABLE = "NAMM_LLM_OPEN_MEMORIES"
LIMIT = "2GiB"


def file_of(memory: str | os.PathLike[str]) -> Path:
    """The file of a saved memory: a path, or the name or ID of one in the store."""
    path = Path(memory)
    if path.is_file() or not isinstance(memory, str) or path.suffix or len(path.parts) != 1:
        return path
    store = MemoryStore()
    if (found := store.find(memory)) is None:
        raise DocumentError(
            f"{memory} is neither a file nor a kept memory; `namm-llm documents list` shows those."
        )
    store.use(found)
    return store.path_of(found)


def is_document(memory: Any) -> TypeGuard[Document]:
    """Whether a memory is a living one. UsageError for what can be no memory."""
    if memory is None or isinstance(memory, str | os.PathLike):
        return False
    from namm_llm import Document

    if not isinstance(memory, Document):
        raise UsageError(
            "memory is a Document, the file of one or the name of a kept one, "
            f"not {type(memory).__name__}."
        )
    return True


def fingerprint_of(memory: Memory) -> str | None:
    """The same for the same text, read by the same model with the same cache settings. A file that
    cannot be read is known by its path.
    """
    if memory is None:
        return None
    if is_document(memory):
        return memory.fingerprint
    try:
        return read_header(file_of(memory)).fingerprint
    except DocumentError as error:
        return f"{os.fspath(memory)}: {error}"


@dataclass
class _Opened:
    document: Future[Document] = field(default_factory=Future)
    owners: set[int] = field(default_factory=set)

    @property
    def nbytes(self) -> int:
        done = self.document.done() and self.document.exception() is None
        return int(self.document.result().info()["nbytes"]) if done else 0


class OpenMemories:
    """Opens each saved memory once; beyond the limit those that were not used for the longest time
    are closed, but never the one just used. Any thread may use it.

    limit: bytes of their caches, as a number or a text such as 2GiB; `$NAMM_LLM_OPEN_MEMORIES` or
    2 GiB, unless given.
    """

    def __init__(self, limit: int | str | None = None) -> None:
        self._limit = limit
        self._opened: OrderedDict[tuple[int, str], _Opened] = OrderedDict()
        self._owners: set[int] = set()
        self._changing = threading.RLock()  # a finalizer may run while it is held

    @property
    def limit(self) -> int:
        """Bytes."""
        given = self._limit or os.environ.get(LIMIT_VARIABLE) or LIMIT
        return given if isinstance(given, int) else _bytes(given)

    @limit.setter
    def limit(self, given: int | str) -> None:
        self._limit = given if isinstance(given, int) else _bytes(given)
        self._close_beyond(None)

    @property
    def nbytes(self) -> int:
        """Of all that are open."""
        with self._changing:
            return sum(each.nbytes for each in self._opened.values())

    def __len__(self) -> int:
        return len(self._opened)

    def open(self, path: str | os.PathLike[str], runner: Runner, owner: object) -> Document:
        """The memory in a file, or of a name in the store, for this runner. It is closed when every
        owner is gone, at the latest.
        """
        file = file_of(path)
        key = (id(runner), str(fingerprint_of(file)))
        with self._changing:
            found = self._opened.get(key)
            is_first = found is None
            found = self._opened.setdefault(key, _Opened())
            self._opened.move_to_end(key)
            found.owners.add(id(owner))
            self._watch(owner)
        if is_first:
            self._load(key, found, runner, file)
        return found.document.result()

    def _load(self, key: tuple[int, str], opened: _Opened, runner: Runner, file: Any) -> None:
        try:
            opened.document.set_result(runner.open(file))
        except BaseException as error:  # whatever it is, others wait for it
            with self._changing:
                self._opened.pop(key, None)
            opened.document.set_exception(error)
        else:
            self._close_beyond(key)

    def _close_beyond(self, keep: tuple[int, str] | None) -> None:
        with self._changing:
            over = self.nbytes - self.limit
            for key, each in list(self._opened.items()):
                if over <= 0:
                    return
                if key != keep and each.document.done():
                    del self._opened[key]
                    over -= each.nbytes

    def _watch(self, owner: object) -> None:
        if id(owner) not in self._owners:
            self._owners.add(id(owner))
            weakref.finalize(owner, self._leave, id(owner)).atexit = False

    def _leave(self, owner: int) -> None:
        with self._changing:
            self._owners.discard(owner)
            for key, each in list(self._opened.items()):
                each.owners.discard(owner)
                if not each.owners:
                    del self._opened[key]


def _bytes(text: str) -> int:
    size = getattr(parse_budget(text), "nbytes", None)
    if not isinstance(size, int):
        raise UsageError(f"a limit of open memories is a size such as {LIMIT}, not {text!r}.")
    return size


OPEN = OpenMemories()
