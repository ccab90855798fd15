"""Compiles the C kernels for this machine's CPU, once, and keeps the library in a cache folder.

Optional: without a C compiler torch's own operators are used. The compiler is CC,
else cc, gcc or clang, else the one of the package `ziglang`. The name of the library is a hash of
sources, compiler, flags and CPU, so a new version, or another machine that shares the folder,
compiles anew.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

FOLDER_VARIABLE = "NAMM_LLM_KERNELS"
"""Environment variable: the folder for compiled kernels, or `off` for none at all."""
SOURCES = Path(__file__).parent / "kernels"
_SECONDS = 120
_FLAGS = (
    "-O3",
    "-std=gnu11",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # the same sums in every kernel: no row depends on its batch
)
_NATIVE = (("-march=native",), ("-mcpu=native",), ())


class CompilerError(Exception):
    """No kernels could be compiled; the message says why, in one line."""


def compiled() -> Path:
    """The library for this CPU, from the cache or compiled now (seconds). Raises CompilerError."""
    if os.name != "posix":
        raise CompilerError(f"compiled kernels are not built on {platform.system()}")
    compiler = _find_compiler()
    folder = cache_folder()
    library = folder / f"kernels-{_key(compiler)}.so"
    if not library.exists():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(folder)
            _compile(compiler, library)
        except OSError as error:
            raise CompilerError(f"the kernels cannot be written: {error}") from error
    _check_owner(folder)
    _check_owner(library)
    return library


def cache_folder() -> Path:
    """Where libraries are kept: FOLDER_VARIABLE, or the platform's place for a user's caches."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("namm-llm", appauthor=False) / "kernels"


def _find_compiler() -> list[str]:
    """The command that compiles C. Raises CompilerError."""
    if chosen := os.environ.get("CC"):
        command = shlex.split(chosen)
        if not command or shutil.which(command[0]) is None:
            raise CompilerError(f"the compiler {chosen!r} (CC) was not found")
        return command
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise CompilerError("no C compiler was found (cc, gcc, clang, CC or the package ziglang)")


def _key(compiler: list[str]) -> str:
    """A hash of everything that the library depends on."""
    hashed = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        hashed.update(path.name.encode() + path.read_bytes())
    described = (*compiler, *_FLAGS, _version(compiler), platform.machine(), _cpu())
    hashed.update("\n".join(described).encode())
    return hashed.hexdigest()[:20]


def _version(compiler: list[str]) -> str:
    """Size and time of the compiler's file: its `--version` would cost a process at every start."""
    path = Path(shutil.which(compiler[0]) or compiler[0]).resolve()
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def _cpu() -> str:
    """The CPU's instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _compile(compiler: list[str], library: Path) -> None:
    """Compile beside, then rename: of two processes the later one wins. Raises CompilerError."""
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compiling-") as scratch:
        made = Path(scratch) / library.name
        reasons = [_try(compiler, native, made) for native in _NATIVE if not made.exists()]
        if not made.exists():
            raise CompilerError(f"{shlex.join(compiler)} failed: {reasons[-1]}")
        made.replace(library)


def _try(compiler: list[str], native: tuple[str, ...], made: Path) -> str:
    """Run the compiler; what it complained about, in one line."""
    command = [*compiler, *_FLAGS, *native, str(SOURCES / "kernels.c"), "-o", str(made), "-lm"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    made.unlink(missing_ok=True)
    lines = [line for line in done.stderr.splitlines() if "error" in line] or [
        f"exit code {done.returncode}"
    ]
    return lines[0].strip()


def _check_owner(path: Path) -> None:
    """CompilerError if somebody else could have put the library there: it is run as this user."""
    found = path.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise CompilerError(f"{path} can be written by other users, so it is not used")
