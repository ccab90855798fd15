"""The compiled library, loaded once in a process."""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from namm_llm.native.compiler import FOLDER_VARIABLE, CompilerError, compiled


@dataclass(frozen=True, kw_only=True)
class Library:
    """The compiled kernels; who uses a function declares its arguments on `functions`."""

    functions: ctypes.CDLL
    """`namm_...`, as `kernels/kernels.c` includes them."""
    name: str
    """What it was compiled for: avx512-vnni, avx512, avx-vnni, avx2 or plain."""
    threads: bool
    """Whether it runs in the threads of torch's OpenMP runtime; else in one."""


@functools.cache
def load() -> Library | str:
    """The library for this CPU, compiled if need be (seconds), or why there is none."""
    if os.environ.get(FOLDER_VARIABLE, "").strip().lower() == "off":
        return f"{FOLDER_VARIABLE}=off"
    try:
        return open_library(compiled())
    except (CompilerError, OSError, AttributeError) as error:
        return " ".join(str(error).split())


def open_library(path: Path) -> Library:
    """Load a compiled library. Raises OSError or AttributeError for another file."""
    functions = ctypes.CDLL(os.fspath(path))
    functions.namm_name.restype = ctypes.c_char_p
    functions.namm_init.argtypes = [ctypes.c_void_p]
    runtime = _openmp()
    functions.namm_init(runtime)
    name = functions.namm_name().decode()
    return Library(functions=functions, name=name, threads=runtime is not None)


def _openmp() -> ctypes.c_void_p | None:
    """GOMP_parallel of torch's own OpenMP runtime: two runtimes would compete for the cores."""
    folder = Path(torch.__file__).parent / "lib"
    for name in (None, *sorted(map(os.fspath, folder.glob("libgomp*")))):
        try:
            return ctypes.cast(ctypes.CDLL(name).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None
