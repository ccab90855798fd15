"""A stream that is saved while it is read: killed and gone on with, it is the memory of a reading
without the break; nothing that is held grows with its length.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from namm_llm.document import Document
from namm_llm.documents import read_header
from namm_llm.engine import document_reader
from namm_llm.errors import DocumentError, UsageError
from tests.documents.vaults import SETTINGS, load

LINES = [
    f"{n:04} vault {n * 7919 % 1000} holds a fox and {n * 31 % 97} coins.\n" for n in range(60)
]
SETTING = {**SETTINGS[3], "chunk": 32, "save_every": 64}


class Killed(BaseException):
    """Ends a reading where a kill would."""


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 200)


def until(count: int) -> Iterator[str]:
    yield from LINES[:count]
    raise Killed


def state(document: Document) -> dict[str, torch.Tensor]:
    return document.session.call(document.cache.state)[0]


def assert_same(one: Document, other: Document) -> None:
    """The same retained tokens, to the last bit, of the same text."""
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    for name, column in first.items():
        assert torch.equal(column, second[name]), name
    assert one.fingerprint == other.fingerprint
    assert one.cache.seen_tokens() == other.cache.seen_tokens()


@pytest.mark.parametrize(
    "settings", [SETTING, {**SETTING, "kv_bits": 8, "budget": 24}, {"chunk": 32, "save_every": 1}]
)
@pytest.mark.parametrize("broken_at", [9, 33, 59])
def test_broken_off_and_gone_on_with_is_one_reading(
    tiny_folder: Path, tmp_path: Path, settings: dict[str, object], broken_at: int
) -> None:
    runner, path = load(tiny_folder, **settings), tmp_path / "log.namm"
    whole = runner.read("".join(LINES))
    with pytest.raises(Killed):
        runner.read(until(broken_at), save=path)
    part = runner.open(path)
    assert 0 < part.cache.seen_tokens()[0] < whole.cache.seen_tokens()[0]
    assert part.ask("How many coins?", max_tokens=2).text is not None
    went = list[int]()
    done = load(tiny_folder, **settings).read(
        io.StringIO("".join(LINES)), save=path, on_progress=lambda done, _: went.append(done)
    )
    assert_same(done, whole)
    assert_same(runner.open(path), whole)
    assert went[-1] < whole.cache.seen_tokens()[0]


def test_what_was_read_to_its_end_is_not_read_again(tiny_folder: Path, tmp_path: Path) -> None:
    runner, path = load(tiny_folder, **SETTING), tmp_path / "log.namm"
    runner.read(iter(LINES), save=path)
    before, went = path.read_bytes(), list[int]()
    again = runner.read(iter(LINES), save=path, on_progress=lambda done, _: went.append(done))
    assert (went, path.read_bytes()) == ([0], before) or (went, path.read_bytes()) == ([], before)
    assert_same(again, runner.open(path))


def test_a_text_that_has_grown_is_gone_on_with(tiny_folder: Path, tmp_path: Path) -> None:
    runner, path = load(tiny_folder, **SETTING), tmp_path / "log.namm"
    short = runner.read(iter(LINES[:40]), save=path)
    grown = runner.read(iter(LINES), save=path)
    extended = short.extend("".join(LINES[40:]))
    assert grown.cache.seen_tokens() == extended.cache.seen_tokens()
    for name, column in state(extended).items():
        assert torch.equal(column, state(grown)[name]), name
    assert read_header(path).extra == {"characters": str(len("".join(LINES)))}


@pytest.mark.parametrize(
    "other", [["Another log.\n", *LINES[1:]], LINES[:5]], ids=["another", "shorter"]
)
def test_another_text_is_refused_and_the_memory_stays(
    tiny_folder: Path, tmp_path: Path, other: list[str]
) -> None:
    runner, path = load(tiny_folder, **SETTING), tmp_path / "log.namm"
    with pytest.raises(Killed):
        runner.read(until(50), save=path)
    before = path.read_bytes()
    with pytest.raises(DocumentError, match=r"does not begin with the .* that its memory has read"):
        runner.read(iter(other), save=path)
    assert path.read_bytes() == before


def test_other_settings_and_other_memories_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    runner, path = load(tiny_folder, **SETTING), tmp_path / "log.namm"
    runner.read(iter(LINES), save=path)
    with pytest.raises(DocumentError, match="was read with replay"):
        load(tiny_folder, **{**SETTING, "budget": 0.5}).read(iter(LINES), save=path)
    runner.read("A fox.").save(path)
    with pytest.raises(DocumentError, match="none of a stream"):
        runner.read(iter(LINES), save=path)
    with pytest.raises(UsageError, match="cannot be written"):
        runner.read(iter(LINES), save=tmp_path / "not there" / "log.namm")


@pytest.mark.parametrize(
    ("piece", "message"), [("a\0b\n", "zero byte"), (b"bytes\n", "bytes, not")]
)
def test_a_bad_piece_ends_the_reading_and_what_was_saved_stays(
    tiny_folder: Path, tmp_path: Path, piece: str, message: str
) -> None:
    runner, path = load(tiny_folder, **SETTING), tmp_path / "log.namm"
    with pytest.raises(DocumentError, match=message):
        runner.read(iter([*LINES[:40], piece, *LINES[40:]]), save=path)
    assert_same(runner.read(iter(LINES), save=path), runner.read("".join(LINES)))


def test_nothing_that_is_held_grows_with_the_text(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_reader, "KEPT_IDS", 500)
    settings = {**SETTING, "budget": 24}
    sizes = []
    for count in (2, 6):
        path = tmp_path / f"{count}.namm"
        memory = load(tiny_folder, **settings).read(iter(LINES * count), save=path)
        assert memory.cache.seen_tokens()[0] > 500
        sizes.append((memory.cache.nbytes, len(memory._ids)))
    assert sizes[0] == sizes[1]
    assert sizes[0][1] == 0
