"""The names that a user gave to memories: one small file for each, so that giving one is a single
step that nothing can tear.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from namm_llm.errors import UsageError
from namm_llm.io import replacing

_LENGTH = 100


class Names:
    """Names in a folder, each with the ID it stands for. Case does not tell two names apart, as on
    many a disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> dict[str, str]:
        """Name, as it was given -> ID. A file that is damaged is left out."""
        found: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                values = json.loads(path.read_text(encoding="utf-8"))
                found[str(values["name"])] = str(values["id"])
        return found

    def id_of(self, name: str) -> str | None:
        """The ID that a name stands for."""
        return {folded(given): id for given, id in self.all().items()}.get(folded(name))

    def give(self, name: str, id: str) -> None:
        """Let a name stand for `id` from now on. OSError if the disk refuses."""
        with replacing(self._path(name)) as part:
            part.write_text(
                json.dumps({"name": name, "id": id}, ensure_ascii=False), encoding="utf-8"
            )

    def remove(self, name: str) -> None:
        """Forget a name; nothing happens if it is not there."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        # a hash, because a name may hold what the name of a file may not
        return self.folder / f"{hashlib.sha256(folded(name).encode()).hexdigest()[:16]}.json"


def check_name(name: str, suffix: str) -> str:
    """A name as it is kept. UsageError if it could be taken for a file (`suffix` is that of
    memories), an option, or nothing at all.
    """
    name = name.strip()
    if not name or len(name) > _LENGTH or not name.isprintable():
        raise UsageError(f"a name has 1 to {_LENGTH} printable characters, not {name!r}.")
    if name.startswith("-") or "/" in name or "\\" in name or name.lower().endswith(suffix):
        raise UsageError(
            f"{name!r} looks like an option or a file: a name begins with no -, has no slash and "
            f"does not end in {suffix}."
        )
    return name


def folded(name: str) -> str:
    """What equal names have in common."""
    return name.strip().casefold()
