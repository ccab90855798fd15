"""Read once, ask by name, ID, content or file: what is read, what is not, and what is said about
it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_llm import Namm
from namm_llm.cli import memories
from namm_llm.cli.main import main
from namm_llm.documents import MemoryStore, read_header
from namm_llm.runner import Runner
from tests.documents.pdf import pdf
from tests.tiny import save_tiny

BUDGET = ("--model", "./model", "--budget", "0.5", "--interval", "8")
CHOSEN = (
    "Tokens are chosen by: replay, budget 0.5, model (--policy chooses another way; "
    "`namm-llm train distil` makes a NAMM for this model).\n"
)
CUT = "(cut at 3 tokens; --max-tokens allows more)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Path:
    """A working folder with a model and documents."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, "model")
    Path("note.txt").write_text("The lamp is green. The door is red.\n")
    Path("plan.pdf").write_bytes(pdf("The wall is blue.", ""))
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that went through a model, in their order."""
    texts: list[str] = []
    real = Runner.read

    def read(self: Runner, text: str, **options: object) -> object:
        texts.append(text)
        return real(self, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "read", read)
    return texts


def call(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, prog_name="namm-llm")


def done(*arguments: str, stdin: str = "") -> Result:
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def ask(document: str, *options: str) -> str:
    return done("ask", document, "What colour?", "--max-tokens", "12", *options).stdout


def test_read_prints_the_id_and_everything_leads_to_the_same_answer(
    folder: Path, reads: list[str]
) -> None:
    read = done("read", "note.txt", *BUDGET)
    id = read.stdout.strip()
    assert (read.stdout, read.stderr) == (f"{id}\n", CHOSEN)
    assert MemoryStore().find(id) == id
    direct = (
        Runner.load("./model", budget=0.5, interval=8)
        .read(Path("note.txt").read_text())
        .ask("What colour?", max_tokens=12)
        .text
    )
    del reads[:]
    assert {
        ask(id),
        ask(id[:6]),
        ask("note.txt", *BUDGET),
        ask(str(MemoryStore().path_of(id))),
    } == {direct + "\n"}
    assert reads == []


def test_the_same_content_with_the_same_settings_is_not_read_again(
    folder: Path, reads: list[str]
) -> None:
    first = json.loads(done("read", "note.txt", *BUDGET, "--json").stdout)
    Path("copy.md").write_text(Path("note.txt").read_text())
    again = done("read", "copy.md", *BUDGET, "--json")
    second = json.loads(again.stdout)
    assert [first["cached"], second["cached"]] == [False, True]
    assert second["memory"] == second["id"] == first["id"]
    assert first["sources"] == ["note.txt"]
    assert {name: second[name] for name in ("seen_tokens", "policy", "text_sha256")} == {
        name: first[name] for name in ("seen_tokens", "policy", "text_sha256")
    }
    assert again.stderr == f"{CHOSEN}copy.md was read before; its memory is used: {first['id']}.\n"
    assert len(reads) == 1
    for other in (
        ("--budget", "0.25"),
        ("--interval", "4"),
        ("--policy", "keydiff"),
        ("--budget-scope", "head"),
        ("--kv-bits", "8"),
        ("--dtype", "bfloat16"),
    ):
        assert not json.loads(done("read", "note.txt", *BUDGET, *other, "--json").stdout)[
            "cached"
        ], other
    assert len(reads) == 7
    assert len(MemoryStore().entries()) == 7


def test_statistics_say_what_is_kept(folder: Path) -> None:
    assert done("read", "note.txt", *BUDGET, "--stats").stderr == f"{CHOSEN}KV 15/31 kept 17 kB\n"


def test_names(folder: Path) -> None:
    one = done("read", "note.txt", *BUDGET, "--name", "my notes")
    assert one.stdout == "my notes\n"
    assert ask("My Notes") == ask("note.txt", *BUDGET)
    id = MemoryStore().find("my notes")
    more = done("read", "note.txt", *BUDGET, "--name", "also")
    assert more.stderr == f"{CHOSEN}note.txt was read before; its memory is used: my notes.\n"
    assert MemoryStore().find("also") == id
    moved = done("read", "plan.pdf", *BUDGET, "--name", "also")
    assert moved.stdout == "also\n"
    assert moved.stderr.endswith(
        f"also was the name of {id} before, which stays under this ID until the store is full.\n"
    )
    assert MemoryStore().find("my notes") == id != MemoryStore().find("also")


def test_several_files_are_one_memory(folder: Path, reads: list[str]) -> None:
    both = done(
        "read",
        "note.txt",
        "-",
        "plan.pdf",
        "--model",
        "./model",
        "--name",
        "both",
        stdin="The roof is grey.",
    )
    assert reads == [
        "Document: note.txt\n\nThe lamp is green. The door is red.\n\nDocument: standard "
        "input\n\nThe roof is grey.\n\n"
        "Document: plan.pdf\n\nThe wall is blue.\n"
    ]
    assert both.stdout == "both\n"
    assert both.stderr == "Warning: plan.pdf: no text could be read on 1 of 2 pages (2).\n"
    header = MemoryStore().entry("both").header
    assert header is not None
    assert header.extra == {"sources": "note.txt, standard input, plan.pdf"}


def test_o_writes_a_file_that_brings_its_model_and_settings(folder: Path, reads: list[str]) -> None:
    assert done("read", "note.txt", *BUDGET, "-o", "note.namm").stdout == "note.namm\n"
    assert MemoryStore().entries() == []
    expected = ask("note.txt", *BUDGET)
    Path("elsewhere").mkdir()
    shutil.move("note.namm", "elsewhere/n.namm")
    assert ask("elsewhere/n.namm") == expected
    assert (
        ask(
            "elsewhere/n.namm",
            *BUDGET,
            "--policy",
            "replay",
            "--budget-scope",
            "model",
            "--device",
            "cpu",
        )
        == expected
    )
    assert (
        json.loads(done("ask", "elsewhere/n.namm", "Why?", "--max-tokens", "2", "--json").stdout)[
            "cache"
        ]["policy"]
        == "replay, budget 0.5, model"
    )
    header = read_header("elsewhere/n.namm")
    assert (header.model.name, header.extra) == (
        str((folder / "model").resolve()),
        {"sources": "note.txt"},
    )


def test_what_the_store_has_is_not_read_for_a_file(folder: Path, reads: list[str]) -> None:
    done("read", "note.txt", *BUDGET)
    assert json.loads(done("read", "note.txt", *BUDGET, "-o", "note.namm", "--json").stdout)[
        "cached"
    ]
    assert len(reads) == 1
    assert ask("note.namm") == ask("note.txt", *BUDGET)


def test_other_settings_than_those_of_the_memory_are_refused(folder: Path) -> None:
    for seed in (0, 1):
        Namm.zeros().save(f"{seed}.safetensors")
    done("read", "note.txt", *BUDGET, "-o", "note.namm")
    done("read", "note.txt", "--model", "./model", "-o", "full.namm")
    for memory, option, value, was in [
        ("note.namm", "--budget", "0.25", "was read with --budget 0.5, not 0.25"),
        ("note.namm", "--budget", "99", "was read with --budget 0.5, not 99"),
        ("note.namm", "--policy", "h2o", "was read with --policy replay, not h2o"),
        ("note.namm", "--interval", "16", "was read with --interval 8, not 16"),
        ("note.namm", "--budget-scope", "head", "was read with --budget-scope model, not head"),
        ("note.namm", "--namm", "0.safetensors", "was not read with the NAMM 0.safetensors"),
        ("full.namm", "--budget", "0.25", "was read without --budget, not 0.25"),
        ("full.namm", "--kv-bits", "8", "was read without --kv-bits, not 8"),
    ]:
        refused = call("ask", memory, "Why?", option, value)
        assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert refused.stderr.startswith(
            f"Error: {memory} {was}; leave the option out, or read the document again with it."
        )


def test_a_memory_with_a_namm_needs_no_namm_file_any_more(folder: Path) -> None:
    Namm.zeros().save("a.safetensors")
    namm = (
        "--model",
        "./model",
        "--policy",
        "namm",
        "--namm",
        "a.safetensors",
        "--budget",
        "0.5",
        "--interval",
        "8",
    )
    done("read", "note.txt", *namm, "-o", "note.namm")
    expected = ask("note.txt", *namm)
    assert ask("note.namm", "--namm", "a.safetensors") == expected
    Path("a.safetensors").unlink()
    assert ask("note.namm") == expected


def test_a_model_that_moved_or_is_another(folder: Path) -> None:
    done("read", "note.txt", *BUDGET, "--name", "notes")
    expected = ask("notes")
    shutil.move("model", "moved")
    gone = call("ask", "notes", "Why?")
    where = (folder / "model").resolve()
    message = (
        f"Error: notes was read with the model {where}, which is not there any more; say "
        "where it is with --model.\n"
    )
    assert (gone.exit_code, gone.stdout, gone.stderr) == (1, "", message)
    assert ask("notes", "--model", "./moved") == expected
    save_tiny(folder / "other", seed=1)
    other = call("ask", "notes", "Why?", "--model", "./other")
    assert (other.exit_code, other.stdout, other.stderr.count("\n")) == (1, "", 1)
    assert "was saved with the weights of" in other.stderr


def test_asking_a_long_file_keeps_its_memory_and_says_so(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = done("ask", "note.txt", "Why?", "--max-tokens", "3", *BUDGET)
    assert short.stderr == CHOSEN + CUT
    assert MemoryStore().entries() == []
    monkeypatch.setattr(memories, "KEEP_TOKENS", 10)
    assert (
        done("ask", "note.txt", "Why?", "--max-tokens", "3", "--no-keep", *BUDGET).stderr
        == CHOSEN + CUT
    )
    assert MemoryStore().entries() == []
    kept = done("ask", "note.txt", "Why?", "--max-tokens", "3", *BUDGET)
    (entry,) = MemoryStore().entries()
    assert kept.stderr.startswith(f"{CHOSEN}The memory of note.txt is kept (")
    assert kept.stderr.endswith(
        f" kB), so that it is not read again: {entry.id}. `namm-llm documents forget "
        f"{entry.id}` removes it, --no-keep keeps none.\n{CUT}"
    )
    assert len(reads) == 3
    again = done("ask", "note.txt", "Why?", "--max-tokens", "3", *BUDGET)
    assert again.stdout == kept.stdout == short.stdout
    assert (
        again.stderr == f"{CHOSEN}note.txt was read before; its memory is used: {entry.id}.\n{CUT}"
    )
    assert len(reads) == 3


def test_a_disk_that_refuses_costs_no_answer(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "KEEP_TOKENS", 10)
    (home / "memories").write_text("a file in the place of the folder")
    expected = done("ask", "note.txt", "Why?", "--max-tokens", "3", "--no-keep", *BUDGET).stdout
    asked = done("ask", "note.txt", "Why?", "--max-tokens", "3", *BUDGET)
    assert asked.stdout == expected
    assert "Warning: the memory is not kept: the store of memories " in asked.stderr
    refused = call("read", "note.txt", *BUDGET)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "cannot be written" in refused.stderr


def test_a_damaged_memory_in_the_store_is_read_again(folder: Path, reads: list[str]) -> None:
    id = done("read", "note.txt", *BUDGET).stdout.strip()
    path = MemoryStore().path_of(id)
    whole = bytearray(path.read_bytes())
    whole[-20] ^= 1  # in the tensors, so the header still looks well
    path.write_bytes(whole)
    broken = call("ask", id, "Why?")
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "is damaged" in broken.stderr
    again = done("read", "note.txt", *BUDGET, "--json")
    assert not json.loads(again.stdout)["cached"]
    assert "is damaged" in again.stderr
    assert len(reads) == 2
    assert ask(id) == ask("note.txt", *BUDGET)
    assert len(reads) == 2


def test_making_room_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = done("read", "note.txt", *BUDGET).stdout.strip()
    monkeypatch.setenv("NAMM_LLM_STORE_SIZE", f"{MemoryStore().entry(first).nbytes + 10}B")
    second = done("read", "plan.pdf", *BUDGET)
    assert (
        f"Removed to make room, as the least recently used: the memory {first} (note.txt, "
        in second.stderr
    )
    assert [entry.id for entry in MemoryStore().entries()] == [second.stdout.strip()]
    MemoryStore().name(second.stdout.strip(), "kept")
    third = done("read", "note.txt", *BUDGET)
    assert "Warning: the memories take " in third.stderr
    assert "raise NAMM_LLM_STORE_SIZE" in third.stderr
    assert len(MemoryStore().entries()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["read", "x.namm"],
            "x.namm is a memory already; ask it with: namm-llm ask x.namm QUESTION.",
        ),
        (["read", "-", "-"], "- stands for standard input and can be given only once."),
        (["read", "note.txt", "-o", "x.bin"], "x.bin must end in .namm"),
        (
            ["read", "note.txt", "-o", "no/x.namm"],
            f"{Path('no/x.namm')} cannot be written: name a file in a folder that exists "
            "and may be written to.",
        ),
        (
            ["read", "note.txt", "-o", "x.namm", "--name", "x"],
            "--name is for memories in the store; leave out one of --name and -o.",
        ),
        (
            ["read", "note.txt", "--name", "a/b"],
            "'a/b' looks like an option or a file: a name begins with no -, has no slash "
            "and does not end in .namm.",
        ),
    ],
)
def test_wrong_use_is_refused_before_anything_is_read(
    folder: Path, reads: list[str], arguments: list[str], message: str
) -> None:
    refused = call(*arguments)
    assert (refused.exit_code, refused.stdout, refused.stderr) == (2, "", f"Error: {message}\n")
    assert reads == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["ask", "handbok", "Why?"],
            "there is no file handbok and no memory of this name; `namm-llm documents "
            "list` shows the memories.",
        ),
        (["ask", "nowhere.txt", "Why?"], "there is no file nowhere.txt."),
        (["read", "model"], "model is a folder; name the files in it."),
        (["read", "note.txt", "nowhere.pdf"], "there is no file nowhere.pdf."),
        (
            ["ask", "nowhere.namm", "Why?"],
            "nowhere.namm is not there; save one with Document.save or `namm-llm read`.",
        ),
    ],
)
def test_what_is_not_there(
    folder: Path, reads: list[str], arguments: list[str], message: str
) -> None:
    refused = call(*arguments)
    assert (refused.exit_code, refused.stdout, refused.stderr) == (1, "", f"Error: {message}\n")
    assert reads == []


@pytest.mark.slow
def test_real_processes_share_the_store(folder: Path) -> None:
    """Another process finds what one has kept, with no option given; two that read the same at once
    leave one whole memory.
    """
    command = [sys.executable, "-m", "namm_llm"]
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": dict(os.environ),
    }
    readers = [
        subprocess.Popen([*command, "read", "note.txt", *BUDGET, "--name", name], **options)
        for name in ("one", "two")
    ]  # type: ignore[call-overload]
    for reader, name in zip(readers, ("one", "two"), strict=True):
        out, err = reader.communicate(timeout=120)
        assert (reader.returncode, out) == (0, f"{name}\n"), err
    (entry,) = MemoryStore().entries()
    assert (sorted(entry.names), entry.problem) == (["one", "two"], "")
    asked = subprocess.run(
        [*command, "ask", "two", "What colour?", "--max-tokens", "12"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert asked.stdout == ask("note.txt", *BUDGET)
    assert asked.stderr == "(cut at 12 tokens; --max-tokens allows more)\n"
