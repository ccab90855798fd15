"""Chats on the disk: for each a file with what was said, and one with the cache, so that it goes on
without reading.

`NAME.json` is written whole or not at all, before and after every answer. `NAME.namm` may lag
behind or be missing: what it lacks is read.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from namm_llm.errors import DocumentError, UsageError
from namm_llm.io import data_folder, explained, replacing

CACHES_NBYTES = 4_000_000_000  # of all caches together; the oldest go first
_NAME = re.compile(r"\w[\w.-]{0,99}")


def sessions_folder() -> Path:
    """Where chats are saved; made if it is not there, for this user alone."""
    folder = data_folder() / "sessions"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@dataclass(frozen=True)
class Listed:
    """A saved chat in a list. record: what it holds, None if its file is damaged. saved_at: seconds
    since 1970.
    """

    name: str
    saved_at: float
    record: dict[str, Any] | None


def saved_sessions() -> list[Listed]:
    """All saved chats, the latest first."""
    found = []
    for path in sessions_folder().glob("*.json"):
        record = None
        with suppress(DocumentError):
            record = read_record(path)
        with suppress(OSError):  # another process removed it
            found.append(Listed(path.stem, path.stat().st_mtime, record))
    return sorted(found, key=lambda listed: listed.saved_at, reverse=True)


class Session:
    """One saved chat, locked for this process until it is closed."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a session: use letters, digits, '-', '_' and '.'."
            )
        folder = sessions_folder()
        self.name = name
        self.path = folder / f"{name}.json"
        self.cache_path = folder / f"{name}.namm"
        self._lock = FileLock(folder / f".{name}.lock", blocking=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"the session {name} is open in another chat; leave that one, or take "
                "another with --session NAME."
            ) from error

    @classmethod
    def new(cls) -> Session:
        """A session with a name of its own, after the time of day."""
        name = time.strftime("%Y-%m-%d-%H%M%S")
        for number in range(1, 1000):
            with suppress(UsageError):
                session = cls(name if number == 1 else f"{name}-{number}")
                if not session.path.exists():
                    return session
                session.close()
        raise UsageError("no name is free for a new session.")

    @classmethod
    def latest(cls) -> Session:
        """The chat that was saved last."""
        paths = sorted(sessions_folder().glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not paths:
            raise UsageError("there is no saved chat to continue; begin one with: namm-llm chat.")
        return cls(paths[-1].stem)

    def load(self) -> dict[str, Any] | None:
        """What was saved, None if nothing was."""
        return read_record(self.path) if self.path.exists() else None

    def save(self, record: dict[str, Any]) -> None:
        """Write what was said, all or nothing. DocumentError if the disk refuses."""
        write_record(self.path, record)

    def drop_old_caches(self) -> None:
        """Remove the oldest caches until all fit; never that of this session."""
        caches = [
            (path.stat().st_mtime, path.stat().st_size, path)
            for path in self.cache_path.parent.glob("*.namm")
        ]
        total = sum(size for _, size, _ in caches)
        for _, nbytes, path in sorted(caches):
            if total <= CACHES_NBYTES:
                return
            if path != self.cache_path:
                path.unlink(missing_ok=True)
                total -= nbytes

    def close(self) -> None:
        """Let another process have it. Of a chat in which nothing was said nothing stays."""
        if not self.path.exists():
            with suppress(OSError):  # some systems keep what is open
                Path(self._lock.lock_file).unlink()
        self._lock.release()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a conversation to a file, all or nothing, for this user's eyes only. DocumentError if
    the disk refuses.
    """
    try:
        with replacing(path) as part:
            part.touch(mode=0o600)
            part.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise DocumentError(
            f"the chat cannot be saved as {path}: {error.strerror or error}."
        ) from error


def read_record(path: Path) -> dict[str, Any]:
    """A conversation from its file. DocumentError if it is none."""
    try:
        with explained(path, DocumentError, "read"):
            values = json.loads(path.read_text(encoding="utf-8"))
        _ = values["conversation"]
    except (ValueError, KeyError, TypeError) as error:
        raise DocumentError(
            f"{path} is no saved chat, or a damaged one; move it away, or take another."
        ) from error
    assert isinstance(values, dict)
    return values


def history_path() -> Path:
    """Where the lines that were typed are kept, for this user alone."""
    path = sessions_folder().parent / "chat_history"
    if not path.exists():
        os.close(os.open(path, os.O_CREAT, 0o600))
    return path
