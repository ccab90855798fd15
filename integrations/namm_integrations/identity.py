"""What an answer depends on, as plain values: frameworks keep answers by it.

Files and folders are known by what they hold and not by their names, living documents by what was
read and not by their address.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from namm_llm import DocumentError, MemoryStore, UsageError, read_header

if TYPE_CHECKING:  # imports torch, which takes seconds
    from namm_llm import Document

    Memory = Document | str | os.PathLike[str] | None


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


def of_memory(memory: Memory) -> str | None:
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


def of_setting(name: str, value: Any) -> Any:
    """A plain value that changes when the setting, or the file that it names, does."""
    if name in ("model", "namm") and isinstance(value, str) and Path(value).exists():
        return f"{value} {_changed(Path(value))}"
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return f"{type(value).__name__} {_content(value)}"


def _changed(path: Path) -> int:
    """When a file, or one in a folder, was last written, in nanoseconds."""
    files = [path, *path.iterdir()] if path.is_dir() else [path]
    return max(each.stat().st_mtime_ns for each in files)


def _content(value: Any) -> str:
    """A hash of a policy, a budget or a NAMM with its numbers."""
    return hashlib.sha256(pickle.dumps(value)).hexdigest()[:16]
