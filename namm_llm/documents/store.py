"""The memories that are kept on this machine, so that no document is read twice.

The files are the truth; there is no index. Each memory is one saved file, `ID.namm`, and its ID
follows from the text and from everything that decides how it was read. When it was last used is the
file's time. So whatever happens to a process, a file is whole or not there, and what is there is
found.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from namm_llm.documents.blocks import TextBlocks
from namm_llm.documents.names import Names, check_name, folded
from namm_llm.documents.saved import SavedHeader, read_header
from namm_llm.errors import BudgetError, DocumentError, UsageError
from namm_llm.io import HOME_VARIABLE, data_folder
from namm_llm.policies.budget import ByteBudget, parse_budget

MEMORY_SUFFIX = ".namm"
LIMIT = "20GB"
LIMIT_VARIABLE = "NAMM_LLM_STORE_SIZE"
_ID_DIGITS = 16
_LEAST_DIGITS = 4  # of an ID, to find a memory by its beginning
# an unfinished file that was not touched for so long was left by a process that was killed
_LEFT_SECONDS = 3600.0


class Saved(Protocol):
    """What the store needs of a memory."""

    def save(self, path: Path, *, extra: Mapping[str, str] | None = None) -> None: ...


@dataclass(frozen=True)
class Entry:
    """A kept memory."""

    id: str
    path: Path
    names: tuple[str, ...]
    """Those that a user gave it."""
    nbytes: int
    used_at: float
    """Seconds since 1970."""
    header: SavedHeader | None
    """None if the file cannot be used."""
    problem: str = ""
    """Why it cannot be used, in one line."""

    @property
    def title(self) -> str:
        """How to call it: its names, or else its ID."""
        return ", ".join(self.names) or self.id


@dataclass(frozen=True)
class Put:
    """What came of keeping a memory."""

    path: Path
    """Where it is now."""
    removed: tuple[Entry, ...]
    """Memories that had to go for it."""
    over_nbytes: int
    """How far the store is still beyond its limit."""
    unnamed: str | None
    """ID of the memory that had the name before."""


class MemoryStore:
    """Memories in a folder. Any number of processes may use it at once.

    folder: `memories` in `data_folder()`, unless given. limit: bytes of all memories;
    `NAMM_LLM_STORE_SIZE` or 20 GB, unless given. When it is passed, those without a name that were
    not used for the longest time are removed. Those with a name never are, nor is the one just put.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, limit: int | None = None
    ) -> None:
        self.folder = Path(folder) if folder is not None else data_folder() / "memories"
        self.limit = limit if limit is not None else _limit_from_environment()
        self.names = Names(self.folder / "names")

    # -- finding -----------------------------------------------------------------------------------

    @staticmethod
    def id_of(text: str, fingerprint: str, settings: Mapping[str, Any]) -> str:
        """The ID of what comes out when weights of this fingerprint read a text with settings as of
        `config_to_dict`.
        """
        whole = json.dumps(
            {"text": TextBlocks.hash_of(text), "fingerprint": fingerprint, "settings": settings},
            sort_keys=True,
        )
        return TextBlocks.hash_of(whole)[:_ID_DIGITS]

    def path_of(self, id: str) -> Path:
        """Where the memory with this ID is, or would be."""
        return self.folder / f"{id}{MEMORY_SUFFIX}"

    def holds(self, id: str, text: str) -> bool:
        """Whether there is a readable memory of this very text; it counts as used now."""
        try:
            header = read_header(self.path_of(id))
        except DocumentError:
            return False
        self.use(id)
        return header.text_sha256 == TextBlocks.hash_of(text)

    def use(self, id: str) -> None:
        """Note that a memory is used now."""
        with suppress(OSError):  # somebody else's file, or just removed: there is nothing to note
            os.utime(self.path_of(id))

    def find(self, wanted: str) -> str | None:
        """The ID of the memory with this name, ID or beginning of an ID (4 digits or more); None if
        there is none.
        """
        if (named := self.names.id_of(wanted)) is not None:
            return named if self.path_of(named).is_file() else None
        if len(wanted) < _LEAST_DIGITS:
            return None
        found = [id for id in self._ids() if id.startswith(wanted.lower())]
        if len(found) > 1:
            raise UsageError(
                f"{wanted} is the beginning of {len(found)} memories: {', '.join(found)}; give "
                "more of it."
            )
        return found[0] if found else None

    def entry(self, wanted: str) -> Entry:
        """One memory, by what `find` takes. DocumentError if there is none."""
        id = self.find(wanted)
        entry = self._entry(id, self.names.all()) if id is not None else None
        if entry is None:
            raise DocumentError(
                f"there is no memory {wanted!r}; `namm-llm documents list` shows all."
            )
        return entry

    def entries(self) -> list[Entry]:
        """All memories, the last used first; useless files and names whose memory is gone are among
        them, with their problem.
        """
        names, ids = self.names.all(), self._ids()
        found = [entry for id in ids if (entry := self._entry(id, names)) is not None]
        gone = "the memory of this name is gone; read the document again, or forget the name"
        found += [
            Entry(id, self.path_of(id), (name,), 0, 0.0, None, gone)
            for name, id in names.items()
            if id not in ids
        ]
        return sorted(found, key=lambda entry: -entry.used_at)

    # -- changing ----------------------------------------------------------------------------------

    def put(
        self,
        id: str,
        memory: Saved,
        *,
        name: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> Put:
        """Keep a memory. extra: strings for its header. DocumentError if the disk refuses."""
        name = check_name(name, MEMORY_SUFFIX) if name is not None else None
        with self._changing():
            memory.save(self.path_of(id), extra=extra)
            unnamed = self._give(name, id) if name is not None else None
            removed, over = self._make_room(id)
        return Put(self.path_of(id), tuple(removed), over, unnamed)

    def name(self, id: str, name: str) -> str | None:
        """Give a kept memory a name, one more if it has some. The ID of the memory that had this
        name before.
        """
        name = check_name(name, MEMORY_SUFFIX)
        with self._changing():
            if not self.path_of(id).is_file():
                raise DocumentError(
                    f"the memory {id} was just removed by another process; read the document again."
                )
            return self._give(name, id)

    def forget(self, wanted: str) -> Entry:
        """Remove a memory; if `wanted` is one of several names, only this name. What comes back has
        the names that are left.
        """
        with self._changing():
            names = self.names.all()
            id = self.names.id_of(wanted) or self.find(wanted)
            if id is None:
                raise DocumentError(
                    f"there is no memory {wanted!r}; `namm-llm documents list` shows all."
                )
            own = [name for name, of in names.items() if of == id]
            going = [name for name in own if folded(name) == folded(wanted)] or own
            entry = self._entry(id, names) or Entry(id, self.path_of(id), tuple(own), 0, 0.0, None)
            for name in going:
                self.names.remove(name)
            left = tuple(name for name in own if name not in going)
            if not left:
                entry.path.unlink(missing_ok=True)
            return replace(entry, names=left)

    def _give(self, name: str, id: str) -> str | None:
        before = self.names.id_of(name)
        self.names.give(name, id)
        return before if before not in (None, id) else None

    # -- files -------------------------------------------------------------------------------------

    def _ids(self) -> list[str]:
        return sorted(
            path.stem
            for path in self.folder.glob(f"*{MEMORY_SUFFIX}")
            if not path.name.startswith(".")
        )

    def _entry(self, id: str, names: Mapping[str, str]) -> Entry | None:
        path = self.path_of(id)
        own = tuple(name for name, of in names.items() if of == id)
        try:
            state = path.stat()
        except OSError:  # removed since the folder was listed
            return None
        try:
            return Entry(id, path, own, state.st_size, state.st_mtime, read_header(path))
        except DocumentError as error:
            return Entry(id, path, own, state.st_size, state.st_mtime, None, str(error))

    def _make_room(self, keep: str) -> tuple[list[Entry], int]:
        """Remove what was not used for the longest time; what was removed, and the bytes that are
        still too many.
        """
        self._sweep()
        names = self.names.all()
        entries = [entry for id in self._ids() if (entry := self._entry(id, names)) is not None]
        total = sum(entry.nbytes for entry in entries)
        removed = []
        for entry in sorted(entries, key=lambda entry: entry.used_at):
            if total <= self.limit:
                break
            if entry.names or entry.id == keep:
                continue
            try:
                entry.path.unlink(missing_ok=True)
            except OSError:  # on Windows, while somebody has it open
                continue
            total -= entry.nbytes
            removed.append(entry)
        return removed, max(0, total - self.limit)

    def _sweep(self) -> None:
        for part in self.folder.glob(".*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _LEFT_SECONDS:
                    part.unlink()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One process at a time; the lock ends with its process. DocumentError if the folder cannot
        be written.
        """
        try:
            self.names.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield
        except OSError as error:
            raise DocumentError(
                f"the store of memories {self.folder} cannot be written: "
                f"{error.strerror or error}; {HOME_VARIABLE} names another place."
            ) from error


def _limit_from_environment() -> int:
    text = os.environ.get(LIMIT_VARIABLE) or LIMIT
    with suppress(BudgetError):
        size = parse_budget(text)
        if isinstance(size, ByteBudget):
            return size.nbytes
    raise UsageError(f"{LIMIT_VARIABLE} must be a size such as {LIMIT}, not {text!r}.")
