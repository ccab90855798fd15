"""Rows: measurements as flat JSON objects, one a line, each measurement once."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers

from namm_llm import UsageError
from namm_llm.io import check_writable, replacing

Row = dict[str, Any]


class RowFile:
    """A file of rows that measurements are added to.

    Two rows that agree in the fields of the key are the same measurement, of which the newer one
    counts. A last line that was cut short when the process ended is removed. Raises UsageError for
    a path that cannot be written and for a file of something else.
    """

    def __init__(self, path: str | os.PathLike[str], key: Sequence[str]) -> None:
        self.path = check_writable(path)
        self._key = tuple(key)
        self._rows = _by_identity(_repaired(self.path), self._key)

    @property
    def rows(self) -> list[Row]:
        """The newest row of each measurement, in the order in which they were first made."""
        return list(self._rows.values())

    def find(self, row: Row) -> Row | None:
        """The row of this measurement, if it was made before."""
        return self._rows.get(_identity(row, self._key))

    def add(self, row: Row) -> None:
        """Append a row; it is on disk when this returns."""
        self._rows[_identity(row, self._key)] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in their order; none if there is no such file. Raises UsageError."""
    return _parsed(path.read_text("utf-8") if path.is_file() else "", path)


def newest(rows: Iterable[Row], key: Sequence[str]) -> list[Row]:
    """The newest row of each measurement, in the order in which they were first made."""
    return list(_by_identity(rows, key).values())


def machine(device: torch.device | None = None) -> Row:
    """What figures depend on: date, machine (of a CUDA device its name), torch, transformers."""
    cpu = (
        f"{torch.get_num_threads()} threads, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    on_gpu = device is not None and device.type == "cuda"
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": torch.cuda.get_device_name(device) if on_gpu else cpu,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }


def _by_identity(rows: Iterable[Row], key: Sequence[str]) -> dict[str, Row]:
    return {_identity(row, key): row for row in rows}


def _identity(row: Row, key: Sequence[str]) -> str:
    return json.dumps([row.get(name) for name in key])


def _repaired(path: Path) -> list[Row]:
    """The rows, after the file lost a last line without its end."""
    text = path.read_text("utf-8") if path.is_file() else ""
    whole, newline, rest = text.rpartition("\n")
    rows = _parsed(whole, path)
    if rest:
        with replacing(path) as part:
            part.write_text(whole + newline, "utf-8")
    return rows


def _parsed(text: str, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = ()
        if not isinstance(row, dict | None):
            raise UsageError(
                f"{path} is no file of rows: line {number} is no JSON object; name another file."
            )
        rows += [row] if row is not None else []
    return rows
