"""Finished answers of a long summary on the disk, one JSON line each, so that a run that was killed
goes on where it stopped.

An answer is found again by everything that decides it: model, eviction, sampling, text and prompt.
A line that was cut short by the kill is ignored, so its answer is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from namm_llm.cache import CacheStats
from namm_llm.config import SamplingParams
from namm_llm.config.header import config_to_dict
from namm_llm.documents.saved import SavedModel
from namm_llm.engine.results import Generation, Timings, Usage
from namm_llm.errors import DocumentError
from namm_llm.io import data_folder
from namm_llm.runner import Runner

_VERSION = 1
_FOLDER = "summaries"
_BEGINNING = b'{"version": '  # of every file that is ours


class WorkFile:
    """A file of answers by their keys.

    It is made with the first answer; of lines with one key the last counts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._answers, self._ends_whole = _read(self.path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Generation | None:
        """The answer that was kept."""
        return self._answers.get(key)

    def prepare(self) -> None:
        """Raise DocumentError if nothing can be written there."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        if self.path.is_dir() or not os.access(
            self.path if self.path.exists() else folder, os.W_OK
        ):
            raise self._refused("not allowed")

    def put(self, answers: Mapping[str, Generation]) -> None:
        """Keep answers; all of them are on the disk when this returns."""
        lines = "".join(
            json.dumps({"version": _VERSION, "key": key, **asdict(answer)}) + "\n"
            for key, answer in answers.items()
        )
        try:
            with open(self.path, "ab", opener=_private) as file:
                file.write((lines if self._ends_whole else f"\n{lines}").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._ends_whole = True
        self._answers.update(answers)

    def remove(self) -> None:
        """Everything is done."""
        self.path.unlink(missing_ok=True)
        self._answers.clear()

    def _refused(self, error: OSError | str) -> DocumentError:
        reason = error.strerror or str(error) if isinstance(error, OSError) else error
        return DocumentError(
            f"the work file {self.path} cannot be written ({reason}); name another file."
        )


def identity(runner: Runner, params: SamplingParams) -> list[Any]:
    """What decides an answer besides text and prompt, ready for JSON."""
    model = SavedModel.of(runner.loaded)
    return [
        _VERSION,
        model.fingerprint,
        model.quantization,
        model.dtype,
        config_to_dict(runner.config),
        asdict(params),
    ]


def key_of(*values: Any) -> str:
    """The same for the same values, which must be ready for JSON."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def work_path(runner: Runner, texts: Sequence[str], *options: Any) -> Path:
    """Where the work of summarizing these texts lies by default, in the user's data folder; the
    same for the same call.

    options: all else that makes two calls different, ready for JSON.
    """
    name = key_of(identity(runner, SamplingParams()), list(texts), options)[:32]
    return data_folder() / _FOLDER / f"{name}.jsonl"


def _private(path: str, flags: int) -> int:
    """Opens a file that nobody else may read: it tells what the user's text says."""
    return os.open(path, flags, 0o600)


def _read(path: Path) -> tuple[dict[str, Generation], bool]:
    """The answers in a file, and whether it ends with a whole line."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, True
    except OSError as error:
        raise DocumentError(
            f"the work file {path} cannot be read ({error.strerror or error}); name another one."
        ) from error
    lines = content.split(b"\n")
    answers = [answer for line in lines if (answer := _answer(line)) is not None]
    if not content.startswith(_BEGINNING[: len(content)]):
        raise DocumentError(
            f"{path} is no work file of a summary, and it would be removed at the end; name "
            "another one."
        )
    return dict(answers), not lines[-1]


def _answer(line: bytes) -> tuple[str, Generation] | None:
    try:
        values = json.loads(line)
        if values.pop("version") != _VERSION:
            return None
        key = str(values.pop("key"))
        parts = {
            "usage": Usage(**values["usage"]),
            "timings": Timings(**values["timings"]),
            "cache": CacheStats(**values["cache"]),
        }
        return key, Generation(**{**values, **parts})
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
