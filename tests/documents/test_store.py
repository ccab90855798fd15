"""The store of memories: what is put is found, by anybody, after anything; what has to go is the
least used, and it is said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from namm_llm.config.header import config_to_dict
from namm_llm.document import Document
from namm_llm.documents import MemoryStore
from namm_llm.errors import DocumentError, UsageError
from namm_llm.runner import Runner

TEXT = "The lamp is green. The door is red."


class Bytes:
    """Something to keep, of a given size, that is no memory."""

    def __init__(self, nbytes: int = 100) -> None:
        self.nbytes = nbytes

    def save(self, path: Path, *, extra: Mapping[str, str] | None = None) -> None:
        path.write_bytes(b"x" * self.nbytes)


@pytest.fixture(scope="module")
def runner(tiny_folder: Path) -> Runner:
    return Runner.load(tiny_folder, budget=0.5, interval=8)


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path / "memories")


def put(store: MemoryStore, runner: Runner, text: str = TEXT, name: str | None = None) -> str:
    id = store.id_of(text, runner.fingerprint, config_to_dict(runner.config))
    store.put(id, runner.read(text), name=name, extra={"sources": "lamp.txt"})
    return id


def fill(store: MemoryStore, *ids: str, nbytes: int = 100) -> None:
    """Useless files, the first used the longest time ago."""
    for age, id in enumerate(reversed(ids)):
        store.put(id, Bytes(nbytes))
        os.utime(store.path_of(id), (1e9 - age, 1e9 - age))


def test_what_is_put_is_found_by_name_by_id_and_by_content(
    store: MemoryStore, runner: Runner
) -> None:
    id = put(store, runner, name="Lamp handbook")
    assert [
        store.find(wanted) for wanted in ("lamp HANDBOOK", id, id[:4], "Lamp", id[:3], "0" * 16)
    ] == [id, id, id, None, None, None]
    assert store.holds(id, TEXT)
    assert not store.holds(id, TEXT + " ")
    assert not store.holds("0" * 16, TEXT)
    again = Document.load(store.path_of(id), runner.session)
    assert (
        again.ask("Green?", max_tokens=8).text == runner.read(TEXT).ask("Green?", max_tokens=8).text
    )
    entry = store.entry("lamp handbook")
    assert (entry.names, entry.title, entry.nbytes) == (
        ("Lamp handbook",),
        "Lamp handbook",
        store.path_of(id).stat().st_size,
    )
    assert entry.header is not None
    assert entry.header.extra == {"sources": "lamp.txt"}


def test_the_id_follows_from_text_weights_and_settings(runner: Runner) -> None:
    eviction = config_to_dict(runner.config)
    ids = [
        MemoryStore.id_of(TEXT, runner.fingerprint, eviction),
        MemoryStore.id_of(TEXT + " ", runner.fingerprint, eviction),
        MemoryStore.id_of(TEXT, "other", eviction),
        MemoryStore.id_of(
            TEXT,
            runner.fingerprint,
            config_to_dict(runner.with_cache(budget=0.25, interval=8).config),
        ),
        MemoryStore.id_of(
            TEXT, runner.fingerprint, config_to_dict(runner.with_cache(budget=0.5).config)
        ),
    ]
    assert len(set(ids)) == len(ids)
    assert ids[0] == MemoryStore.id_of(
        TEXT, runner.fingerprint, config_to_dict(runner.with_cache(budget=0.5, interval=8).config)
    )


def test_a_name_may_move_and_a_memory_may_have_several(store: MemoryStore) -> None:
    fill(store, "a" * 16, "b" * 16)
    assert store.name("a" * 16, "x") is None
    assert store.name("a" * 16, "y") is None
    assert store.entry("x").names == ("x", "y")
    assert store.name("a" * 16, "X") is None  # the same name, written otherwise
    assert store.entry("a" * 16).names == ("X", "y")
    assert store.name("b" * 16, "x") == "a" * 16
    assert store.find("x") == "b" * 16
    assert store.put("c" * 16, Bytes(), name="y").unnamed == "a" * 16
    assert store.find("y") == "c" * 16
    assert store.find("a" * 16) == "a" * 16
    with pytest.raises(DocumentError, match="was just removed by another process"):
        store.name("d" * 16, "z")


def test_forgetting_a_name_keeps_a_memory_that_has_another(store: MemoryStore) -> None:
    fill(store, "a" * 16)
    store.name("a" * 16, "x")
    store.name("a" * 16, "y")
    assert store.forget("x").names == ("y",)
    assert store.find("y") == "a" * 16
    assert store.find("x") is None
    gone = store.forget("Y")
    assert (gone.names, gone.nbytes) == ((), 100)
    assert store.entries() == []
    with pytest.raises(
        DocumentError, match=r"^there is no memory 'y'; `namm-llm documents list` shows all\.$"
    ):
        store.forget("y")


def test_forgetting_an_id_takes_its_names_along(store: MemoryStore) -> None:
    fill(store, "a" * 16, "aaaab" + "0" * 11)
    store.name("a" * 16, "x")
    store.name("a" * 16, "y")
    with pytest.raises(
        UsageError,
        match=r"^aaaa is the beginning of 2 memories: a{16}, aaaab0{11}; give more of it\.$",
    ):
        store.forget("aaaa")
    assert store.forget("aaaaa").names == ()
    assert store.names.all() == {}


@pytest.mark.parametrize(
    "name", ["Handbuch für Reisen", "con", "a:b*c?", "漢字.", "x" * 100, ".hidden"]
)
def test_names_may_hold_what_files_may_not(store: MemoryStore, name: str) -> None:
    fill(store, "a" * 16)
    store.name("a" * 16, name)
    assert store.entry(name).names == (name,)
    assert all(path.name.isascii() and path.stem.isalnum() for path in store.names.folder.iterdir())


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * 101, "a\nb", "a/b", "a\\b", "-a", "a.namm", "a.NAMM"]
)
def test_names_that_could_be_something_else_are_refused(store: MemoryStore, name: str) -> None:
    fill(store, "a" * 16)
    with pytest.raises(UsageError, match="a name "):
        store.name("a" * 16, name)
    with pytest.raises(UsageError, match="a name "):
        store.put("b" * 16, Bytes(), name=name)
    assert store.names.all() == {}
    assert store.find("b" * 16) is None


def test_the_least_recently_used_goes_first_and_a_name_protects(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, limit=350)
    ids = [letter * 16 for letter in "abc"]
    fill(store, *ids)
    store.name(ids[0], "kept")
    store.use(ids[1])
    done = store.put("d" * 16, Bytes())
    assert [entry.id for entry in done.removed] == [ids[2]]
    assert done.over_nbytes == 0
    assert store.entries()[0].id == "d" * 16
    assert {entry.id for entry in store.entries()} == {ids[0], ids[1], "d" * 16}


def test_what_was_just_put_stays_even_if_it_is_too_large(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, limit=150)
    fill(store, "a" * 16)
    store.name("a" * 16, "kept")
    done = store.put("b" * 16, Bytes(200))
    assert (done.removed, done.over_nbytes) == ((), 150)
    assert len(store.entries()) == 2


def test_broken_files_are_listed_with_what_is_wrong_and_can_be_forgotten(
    store: MemoryStore, runner: Runner
) -> None:
    good = put(store, runner)
    whole = store.path_of(good).read_bytes()
    store.path_of("1" * 16).write_bytes(whole[: len(whole) // 2])
    store.path_of("2" * 16).write_bytes(b"")
    store.name("2" * 16, "empty")
    (store.names.folder / "0.json").write_text("{", encoding="utf-8")
    store.names.give("dangling", "3" * 16)
    problems = {entry.title: entry.problem for entry in store.entries()}
    assert set(problems) == {good, "1" * 16, "empty", "dangling"}
    assert problems[good] == ""
    assert "is damaged or cut short" in problems["1" * 16]
    assert "is damaged or cut short" in problems["empty"]
    assert "the memory of this name is gone" in problems["dangling"]
    assert not store.holds("1" * 16, TEXT)
    for wanted in ("1" * 16, "empty", "dangling"):
        store.forget(wanted)
    assert [entry.title for entry in store.entries()] == [good]


def test_what_killed_processes_left_is_removed_after_an_hour(store: MemoryStore) -> None:
    fill(store, "a" * 16)
    old, new = (store.folder / f".b.namm.{age}.part" for age in ("old", "new"))
    for part, age in ((old, 7200), (new, 10)):
        part.write_bytes(b"x")
        os.utime(part, (time.time() - age,) * 2)
    store.put("c" * 16, Bytes())
    assert [old.exists(), new.exists()] == [False, True]
    assert [entry.id for entry in store.entries()] == ["c" * 16, "a" * 16]  # a part is no memory


def test_the_limit_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAMM_LLM_HOME", str(tmp_path))
    assert MemoryStore().limit == 20_000_000_000
    assert MemoryStore().folder == tmp_path / "memories"
    monkeypatch.setenv("NAMM_LLM_STORE_SIZE", "1.5GiB")
    assert MemoryStore().limit == 3 * 2**29
    for wrong in ("much", "12", "0.5", "0GB"):
        monkeypatch.setenv("NAMM_LLM_STORE_SIZE", wrong)
        with pytest.raises(
            UsageError, match=f"NAMM_LLM_STORE_SIZE must be a size such as 20GB, not '{wrong}'"
        ):
            MemoryStore()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = MemoryStore(tmp_path / "file" / "memories")
    assert store.entries() == []
    with pytest.raises(
        DocumentError,
        match=r"^the store of memories .* cannot be written: .*; NAMM_LLM_HOME names another ",
    ):
        store.put("a" * 16, Bytes())


# -- several processes -----------------------------------------------------------------------------
# ---------------------------------------

WRITER = """
import sys
from pathlib import Path
from namm_llm.documents import MemoryStore
from namm_llm.errors import DocumentError
from tests.documents.test_store import Bytes
store = MemoryStore(sys.argv[1], limit=int(sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(12):
    id = f"{number:015}{sys.argv[2]}"
    store.put(id, Bytes(), name=f"shared {number % 3}")
    store.put(f"{number:015}f", Bytes())
    try:
        store.name(id, f"own {sys.argv[2]}")
    except DocumentError as error:
        # while this process waited, the other took the shared name away and needed the room
        assert str(error).startswith(f"the memory {id} was just removed by another process"), error
    else:
        store.forget(f"own {sys.argv[2]}")
    store.entries()
"""

SLOW_WRITER = """
import sys
from pathlib import Path
from namm_llm.documents import MemoryStore
from namm_llm.io import replacing

class Endless:
    def save(self, path, *, extra=None):
        with replacing(path) as part:
            with part.open("wb") as file:
                file.write(b"half")
                file.flush()
                print("writing", flush=True)
                sys.stdin.readline()

MemoryStore(sys.argv[1]).put("a" * 16, Endless(), name="lamp")
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        cwd=root,
    )


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    """Both put, name and forget in one folder with little room; neither fails, and what is left is
    whole and within the limit.
    """
    limit = 1000
    with (
        child(WRITER, str(tmp_path), "a", str(limit)) as first,
        child(WRITER, str(tmp_path), "b", str(limit)) as second,
    ):
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (first, second):
            assert process.stderr is not None
            assert (process.wait(60), process.stderr.read()) == (0, "")
    store = MemoryStore(tmp_path, limit)
    entries = store.entries()
    assert {entry.nbytes for entry in entries} == {100}
    assert 500 <= sum(entry.nbytes for entry in entries) <= limit
    assert {name for entry in entries for name in entry.names} == {
        "shared 0",
        "shared 1",
        "shared 2",
    }
    assert list(store.folder.glob(".*.part")) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("before", [False, True], ids=["new", "old one there"])
def test_killed_in_the_middle_of_a_put(store: MemoryStore, runner: Runner, before: bool) -> None:
    old = b""
    if before:
        store.path_of(put(store, runner)).rename(store.path_of("a" * 16))
        old = store.path_of("a" * 16).read_bytes()
    with child(SLOW_WRITER, str(store.folder)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert [entry.problem for entry in store.entries()] == [""] * before
    assert store.find("lamp") is None
    if before:
        assert store.path_of("a" * 16).read_bytes() == old
    id = put(store, runner, name="lamp")  # the lock of the dead process holds nobody up
    assert store.find("lamp") == id
    assert json.loads(next(store.names.folder.glob("*.json")).read_text()) == {
        "name": "lamp",
        "id": id,
    }
