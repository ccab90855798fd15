"""Memories of documents for clients: read in the background, kept in the store, held open."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from namm_llm.config.header import config_to_dict
from namm_llm.document import Document
from namm_llm.documents import MEMORY_SUFFIX, MemoryStore
from namm_llm.documents.names import check_name
from namm_llm.documents.store import Entry
from namm_llm.errors import DocumentError, UsageError
from namm_llm.runner import Runner

State = Literal["reading", "ready", "failed"]
_WHY_NOT = {"reading": "is still being read", "failed": "could not be read"}
_FAILED_KEPT = 100  # reports of failures, for clients that ask later


@dataclass(frozen=True)
class MemoryState:
    """What a client is told of a memory."""

    name: str
    status: State
    created_at: int
    read_tokens: int = 0
    total_tokens: int = 0
    kept_tokens: int | None = None
    bytes: int | None = None
    policy: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"object": "memory", **asdict(self)}


class Memories:
    """The memories of all owners. Any number of threads may use it.

    store: where those of the one owner of a server without keys are; those of others are in
    folders of their own beside them. most: bytes of the caches that are held open.
    """

    def __init__(self, runner: Runner, store: MemoryStore, most: int) -> None:
        self._runner = runner
        self._store = store
        self._most = most
        self._open: OrderedDict[tuple[str, str], Document] = OrderedDict()
        self._states: OrderedDict[tuple[str, str], MemoryState] = OrderedDict()
        self._changing = threading.Lock()
        self._stopped = threading.Event()

    # -- finding -----------------------------------------------------------------------------------

    def open(self, name: str, owner: str) -> Document:
        """A memory to ask. DocumentError if there is none of this name, or it cannot be asked."""
        store = self._store_of(owner)
        id = store.find(name)
        if id is None:
            state = self._states.get((owner, name))
            why = "is not there" if state is None else _WHY_NOT[state.status]
            raise DocumentError(f"the memory {name!r} {why}; GET /v1/memories lists all.")
        with self._changing:
            if (owner, id) in self._open:
                self._open.move_to_end((owner, id))
                return self._open[owner, id]
        document = self._runner.open(store.path_of(id))
        store.use(id)
        self._hold(owner, id, document)
        return document

    def states(self, owner: str) -> list[MemoryState]:
        """All memories of an owner: those in the store, and those that are being read."""
        with self._changing:
            unfinished = [state for (of, _), state in self._states.items() if of == owner]
        entries = self._store_of(owner).entries()
        # a text that was read under two names is one memory with both
        kept = [_state_of(each, name) for each in entries for name in each.names or (each.id,)]
        return [*unfinished, *kept]

    def state(self, name: str, owner: str) -> MemoryState:
        """One of them. DocumentError if there is none."""
        for state in self.states(owner):
            if state.name == name:
                return state
        raise DocumentError(f"there is no memory {name!r}; GET /v1/memories lists all.")

    # -- changing ----------------------------------------------------------------------------------

    def begin(self, name: str, owner: str) -> MemoryState:
        """What is told of a memory that will be read. UsageError for a name that cannot be one."""
        name = check_name(name, MEMORY_SUFFIX)
        state = MemoryState(name, "reading", int(time.time()))
        self._note(owner, state)
        return state

    def read(self, state: MemoryState, text: str, owner: str) -> None:
        """Read a text and keep its memory; takes as long as reading takes, and raises nothing: a
        failure becomes the memory's state.
        """

        def report(done: int, total: int) -> None:
            if self._stopped.is_set():
                raise DocumentError("the server ended while it was read; send it again.")
            self._note(owner, replace(state, read_tokens=done, total_tokens=total))

        try:
            store, runner = self._store_of(owner), self._runner
            id = store.id_of(text, runner.fingerprint, config_to_dict(runner.config))
            if store.holds(id, text):
                store.name(id, state.name)
            else:
                document = runner.read(text, on_progress=report)
                store.put(id, document, name=state.name, extra={"sources": state.name})
                self._hold(owner, id, document)
        except Exception as error:
            self._note(owner, replace(state, status="failed", error=self.told(error)))
        else:
            with self._changing:
                self._states.pop((owner, state.name), None)

    def stop(self) -> None:
        """End all readings with their next call of the model."""
        self._stopped.set()

    def forget(self, name: str, owner: str) -> None:
        """Remove a memory. DocumentError if there is none, UsageError while it is being read."""
        with self._changing:
            state = self._states.get((owner, name))
            if state is not None and state.status == "reading":
                raise UsageError(f"{name!r} is still being read; forget it when it is ready.")
            had_failed = self._states.pop((owner, name), None)
        store = self._store_of(owner)
        if had_failed is not None and store.find(name) is None:
            return
        entry = store.forget(name)
        with self._changing:
            self._open.pop((owner, entry.id), None)

    def told(self, error: Exception) -> str:
        """An error's message without the folders of this machine."""
        model, folder = self._runner.loaded.model_id, str(self._store.folder)
        return str(error).replace(model, Path(model).name or model).replace(folder, "the store")

    # -- inside ------------------------------------------------------------------------------------

    def _store_of(self, owner: str) -> MemoryStore:
        if not owner:
            return self._store
        return MemoryStore(self._store.folder / "owners" / owner, self._store.limit)

    def _note(self, owner: str, state: MemoryState) -> None:
        with self._changing:
            self._states[owner, state.name] = state
            failed = [key for key, each in self._states.items() if each.status == "failed"]
            for key in failed[:-_FAILED_KEPT]:
                del self._states[key]

    def _hold(self, owner: str, id: str, document: Document) -> None:
        """Keep a memory open, and close those that were used longest ago if there are too many
        bytes; the newest one stays.
        """
        with self._changing:
            self._open[owner, id] = document
            self._open.move_to_end((owner, id))
            total = sum(each.cache.nbytes for each in self._open.values())
            while total > self._most and len(self._open) > 1:
                _, closed = self._open.popitem(last=False)
                total -= closed.cache.nbytes


def _state_of(entry: Entry, name: str) -> MemoryState:
    created, header = int(entry.used_at), entry.header
    if header is None:
        return MemoryState(name, "failed", created, error=entry.problem)
    return MemoryState(
        name,
        "ready",
        created,
        read_tokens=header.seen_tokens,
        total_tokens=header.seen_tokens,
        kept_tokens=header.stored_tokens,
        bytes=entry.nbytes,
        policy=header.policy,
    )
