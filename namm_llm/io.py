"""Atomic files, and the folder where this program keeps its data."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from namm_llm.errors import NammError, UsageError

HOME_VARIABLE = "NAMM_LLM_HOME"
_LEFT_SECONDS = (
    3600.0  # a part that was not touched for so long was left by a process that was killed
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path`; when the block ends it is on the disk and takes the place of
    `path`, in one step.

    After an error, or a kill at any moment, `path` is what it was. OSError if the disk refuses. Of
    two writers the later one wins.
    """
    # beside the target, because a rename is atomic only within one file system
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield part
        _sync(
            part, os.O_RDWR
        )  # before the rename: else a power cut could leave the new name with no contents
        part.replace(path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(path.parent, os.O_RDONLY)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    _sweep(path)


@contextmanager
def explained(
    path: str | os.PathLike[str], error: type[NammError], done: str = "written"
) -> Iterator[None]:
    """Makes an OSError of the block one of these: that `path` cannot be written, and why."""
    try:
        yield
    except OSError as refused:
        reason = refused.strerror or refused
        raise error(f"{path} cannot be {done}: {reason}.") from refused


def write_text(path: str | os.PathLike[str], text: str, error: type[NammError]) -> None:
    """Write a text file, all or nothing, or raise one of these."""
    with explained(path, error), replacing(Path(path)) as part:
        part.write_text(text, encoding="utf-8")


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed processes left of earlier tries."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _LEFT_SECONDS:
                part.unlink()


def data_folder() -> Path:
    """The folder of all kept data, which need not exist yet: `NAMM_LLM_HOME`, or the platform's
    place for a user's data.
    """
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser()
    from platformdirs import user_data_path

    return user_data_path("namm-llm", appauthor=False)


def check_writable(path: str | os.PathLike[str], *suffixes: str) -> Path:
    """The path, if a file can be written there; so that nothing is computed in vain.

    suffixes: one of them must end the name, if any are given. UsageError if not.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{path} must end in {', '.join(suffixes)}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"{path} cannot be written: name a file in a folder that exists and may be written to."
        )
    return path
