"""A file of JSON lines that measurements are added to, each once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from namm_llm.errors import UsageError

Row = dict[str, Any]


class JsonRows:
    """Rows in a file of JSON lines; one that was cut short while it was written is measured again.
    Raises UsageError.

    KEY: two rows that agree in these fields are the same measurement, of which the newer one
    counts. A row that lacks one is passed over.
    """

    KEY: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if self._path.is_dir() or not os.access(self._path.parent, os.W_OK):
            raise UsageError(
                f"{path} cannot be written: name a file in a folder that exists and may be written to"
            )
        self._rows = {self._identity(row): row for row in self._load()}

    @property
    def rows(self) -> list[Row]:
        """The newest row of each measurement, in the order in which they were first made."""
        return list(self._rows.values())

    def find(self, key: Row) -> Row | None:
        """The row of this measurement, if it was made before."""
        return self._rows.get(self._identity(key))

    def add(self, row: Row) -> None:
        """Write a row; it is on disk when this returns."""
        self._rows[self._identity(row)] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _load(self) -> list[Row]:
        text = self._path.read_text("utf-8") if self._path.is_file() else ""
        whole, newline, rest = text.rpartition("\n")
        if rest:  # a row that was being written when the process ended
            part = self._path.with_name(f".{self._path.name}.part")
            part.write_text(whole + newline, "utf-8")
            part.replace(self._path)
        rows = [
            _parsed(line, number, self._path)
            for number, line in enumerate(whole.splitlines(), 1)
            if line.strip()
        ]
        return [row for row in rows if all(name in row for name in self.KEY)]

    def _identity(self, row: Row) -> str:
        return json.dumps([row[name] for name in self.KEY])


def _parsed(line: str, number: int, path: Path) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UsageError(
            f"{path} is no file of rows: line {number} is no JSON object; name another file."
        )
    return row
