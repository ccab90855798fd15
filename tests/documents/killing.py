"""Saves that are killed, or meet a full disk: a program of its own, so that it can fork. Prints
what was found as one JSON line.

    python -m tests.documents.killing FOLDER

Every case starts with the old file in place; a fork writes the new one; then the file is read,
every bit of it checked.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch

from namm_llm.documents.saved import VERSION, SavedHeader, SavedModel, checksum, read, write
from namm_llm.errors import DocumentError

torch.set_num_threads(1)
OLD, NEW = 0, 1


def memory(number: int, rows: int = 64) -> tuple[dict[str, torch.Tensor], SavedHeader]:
    """Tensors that are all `number`, and a header that says so."""
    tensors = {f"{layer}.0.keys": torch.full((rows, 32), float(number)) for layer in range(3)}
    model = SavedModel("none", None, None, "float32", "0", "")
    header = SavedHeader(
        VERSION, model, {}, "full", rows, rows, "", {"number": str(number)}, {}, checksum(tensors)
    )
    return tensors, header


def seen(path: Path) -> int:
    """Which memory is in the file, all of it."""
    header, tensors = read(path)
    numbers = {float(value) for tensor in tensors.values() for value in tensor.unique()}
    assert numbers == {float(header.extra["number"])}, numbers
    return int(header.extra["number"])


def killed(path: Path, rows: int, *, at: int | None = None, seconds: float | None = None) -> bool:
    """Write the new memory in a fork; kill it at its step `at`, or after `seconds`."""
    new = memory(NEW, rows)
    child = os.fork()
    if not child:
        if at is not None:
            sys.setprofile(Killer(at))
        write(path, *new)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


class Killer:
    """A profiler that kills its own process before or behind a call of a C function; it counts from
    the first that writes.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.is_writing = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        self.is_writing = self.is_writing or getattr(argument, "__name__", "") == "serialize_file"
        if not self.is_writing or event not in ("c_call", "c_return"):
            return
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def steps(path: Path) -> list[int]:
    """What is in the file after a kill at each step of a save, until one gets through."""
    found = []
    while True:
        write(path, *memory(OLD))
        was_killed = killed(path, 64, at=len(found))
        found.append(seen(path))
        if not was_killed:
            return found


def moments(path: Path) -> list[int]:
    """What is in the file after a kill at a random moment of a save of some megabytes."""
    rows, found, draw = 10_000, list[int](), random.Random(0)
    start = time.perf_counter()
    killed(path, rows)
    length = time.perf_counter() - start
    for _ in range(40):
        write(path, *memory(OLD))
        killed(path, rows, seconds=draw.uniform(0, length))
        found.append(seen(path))
    return found


def writers(path: Path) -> list[int]:
    """What a reader sees while two processes save to one file again and again, and at the end."""
    write(path, *memory(0))
    children = []
    for writer in (1, 2):
        child = os.fork()
        if not child:
            for count in range(50):
                write(path, *memory(writer + 2 * count))
            os._exit(0)
        children.append(child)
    found = []
    while children:
        found.append(seen(path))
        children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
    return [*found, seen(path)]


def full_disk(path: Path) -> list[tuple[str, int, int]]:
    """The error of a save, what is in the file and how many files there are, under ever higher
    limits on the size of files: the system stops a write in its middle, as it does on a full disk.
    """
    write(path, *memory(OLD))
    size, found = path.stat().st_size, []
    for limit in (*(size * part // 20 for part in range(20)), size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        message = ""
        try:
            write(path, *memory(NEW))
        except DocumentError as error:
            message = str(error)
        found.append((message, seen(path), len(list(path.parent.iterdir()))))
    return found


if __name__ == "__main__":
    found = {}
    for case in (steps, moments, writers, full_disk):
        folder = Path(sys.argv[1]) / case.__name__
        folder.mkdir()
        found[case.__name__] = {
            "seen": case(folder / "memory.namm"),
            "left": [path.name for path in folder.iterdir()],
        }
    print(json.dumps(found))
