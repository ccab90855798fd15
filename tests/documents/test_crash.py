"""Whatever happens to a save or to a file, whoever opens it finds a whole memory, the old one or
the new one, or a clear error.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from namm_llm.document import Document
from namm_llm.documents import read_header
from namm_llm.documents.saved import read
from namm_llm.errors import DocumentError
from tests.documents.vaults import SETTINGS, TEXT, load


@pytest.fixture(scope="module")
def saved(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "vaults.namm"
    load(tiny_folder, **SETTINGS[3]).read(TEXT * 4).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `killing.py` found."""
    if not hasattr(os, "fork"):
        pytest.skip("kills forks")
    command = [
        sys.executable,
        "-m",
        "tests.documents.killing",
        str(tmp_path_factory.mktemp("killing")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_every_step_of_a_save(found: dict[str, dict[str, Any]]) -> None:
    seen = found["steps"]["seen"]
    assert seen == sorted(seen)  # the old file up to the rename, the new one from then on
    assert seen.count(0) > 5
    assert seen.count(1) > 5


def test_killed_at_random_moments(found: dict[str, dict[str, Any]]) -> None:
    seen = found["moments"]["seen"]
    assert len(seen) == 40
    assert set(seen) <= {0, 1}  # which one is the clock's business


def test_two_writers_and_a_reader(found: dict[str, dict[str, Any]]) -> None:
    seen = found["writers"]["seen"]
    assert seen[-1] in (99, 100)  # the last that one of them wrote
    assert set(seen) <= set(range(101))
    assert found["writers"]["left"] == ["memory.namm"]


def test_a_full_disk(found: dict[str, dict[str, Any]]) -> None:
    *full, written = found["full_disk"]["seen"]
    assert written == ["", 1, 1]
    assert len(full) == 20
    for message, number, files in full:
        assert "memory.namm cannot be written: " in message
        assert "\n" not in message
        assert (number, files) == (0, 1)  # the old memory, and no rest of the new one


def test_cut_anywhere(saved: bytes, tmp_path: Path, tiny_folder: Path) -> None:
    path, runner = tmp_path / "cut.namm", load(tiny_folder)
    lengths = [*range(0, len(saved), 1000), *range(0, 100, 7), len(saved) - 1]
    assert len(lengths) > 100
    for length in lengths:
        path.write_bytes(saved[:length])
        with pytest.raises(DocumentError):
            Document.load(path, runner.session)
        with pytest.raises(DocumentError):
            read_header(path)


def test_flipped_bits(saved: bytes, tmp_path: Path) -> None:
    path, draw = tmp_path / "flipped.namm", random.Random(0)
    path.write_bytes(saved)
    assert read(path)[0].seen_tokens > 500
    tensors_at = 8 + int.from_bytes(saved[:8], "little")
    places = [
        *range(64),
        *draw.sample(range(tensors_at * 8), 400),
        *draw.sample(range(tensors_at * 8, len(saved) * 8), 150),
    ]
    for place in places:
        data = bytearray(saved)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(DocumentError, match=r"^[^\n]*flipped\.namm [^\n]*$"):
            read(path)


def test_what_killed_saves_left_is_removed_in_time(
    saved: bytes, tmp_path: Path, tiny_folder: Path
) -> None:
    path = tmp_path / "fox[1].namm"
    left, fresh, other = (
        tmp_path / name
        for name in (".fox[1].namm.00.part", ".fox[1].namm.11.part", ".fox1.namm.00.part")
    )
    for part in (left, fresh, other):
        part.write_bytes(b"half")
    for part in (left, other):
        os.utime(part, (0, 0))
    load(tiny_folder).read("The fox.").save(path)
    assert {found.name for found in tmp_path.iterdir()} == {path.name, fresh.name, other.name}
