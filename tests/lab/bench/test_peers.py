"""Peers in a process of their own, on a GGUF file: transformers, which is here, and one that is
not.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner, Result

from namm_lab.bench import KEY, Benchmark, run_benchmark
from namm_lab.bench.model import load
from namm_lab.bench.needles import draw_needles
from namm_lab.bench.peers.opening import opened_peers
from namm_lab.reports import gguf
from namm_lab.rows import RowFile, read_rows
from namm_llm import UsageError
from namm_llm.cli.main import main
from tests.lab.bench.test_rows import CONTRACT
from tests.models.gguf.files import VOCABULARY, FileWriter, tiny_model

SMALL = (
    "--texts", "documentation", "--lengths", "150,250", "--interval", "64", "--runs", "2",
    "--decoded", "3", "--dtype", "float32", "--policies", "full,replay", "--budgets", "0.25,64",
)  # fmt: skip
SIDES = ["full", "replay 0.25", "replay 64", "transformers"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A model whose embedding and head are one table, as SmolLM2's are."""
    model = tiny_model("llama", VOCABULARY)
    writer = FileWriter(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, "llama")
    writer.add_weights(model, "F32")
    return writer.write()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("bench", *arguments), prog_name="namm-llm")


def test_all_sides_in_one_run(file, tmp_path):
    rows_file, plot = tmp_path / "rows.jsonl", tmp_path / "plot.png"
    arguments = ("--model", str(file), "--peers", "llama.cpp,openvino,transformers", *SMALL)
    arguments += ("--peer-python", f"llama.cpp={sys.executable}", "--json", str(rows_file))
    arguments += ("--peer-python", "openvino=nowhere/python")
    done = call(*arguments, "--tasks", "prefill,decode", "--plot", str(plot))
    assert done.exit_code == 0, done.output
    line, absent = [line for line in done.stderr.splitlines() if "left out" in line]
    assert absent == (
        "openvino is left out: there is no nowhere/python (make bench-peers installs it, "
        "--peer-python openvino=PYTHON says where it is)."
    )
    assert "llama.cpp is left out" in line
    assert "No module named 'llama_cpp'" in line
    assert "make bench-peers" in line
    rows = read_rows(rows_file)
    assert len(rows) == len(SIDES) * 2 * 2
    for row in rows:
        assert (row["model"], row["text"]) == ("tiny.gguf", "documentation")
    theirs = [row for row in rows if row["contender"] == "transformers"]
    assert all(row["nbytes"] == row["length"] * 3 * 2 * 2 * 16 * 4 for row in theirs)
    assert {row["peer"].split()[0] for row in theirs} == {"transformers"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    _reported(rows, tmp_path)


def _reported(rows, folder):
    table = gguf.beside(rows)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:10]]
    assert [line[1] for line in lines] == ["150"] * 4 + ["250"] * 4
    assert [line[2].removeprefix("namm-llm ") for line in lines] == SIDES * 2
    for line in lines:
        assert all(line[column] for column in (3, 4, 5, 6, 10))
        assert bool(line[8]) is bool(line[9]) is (line[2] != "namm-llm replay 0.25")
    assert gguf.PLOT in table
    assert gguf.draw(rows, folder) == [folder / gguf.PLOT]
    assert "| transformers |" in gguf.summary(rows)


@pytest.fixture(scope="module")
def plan(file):
    return Benchmark(
        model=str(file),
        tasks=("needles",),
        needles=2,
        texts=("documentation", "code"),
        lengths=(300,),
        policies=("full",),
        peers=("transformers",),
        runs=1,
        decoded=2,
        dtype="float32",
    )


@pytest.fixture(scope="module")
def theirs(plan):
    """The peer of the plan; its process takes seconds to start."""
    with opened_peers(plan, {}, pytest.fail) as (peer,):
        yield peer


@pytest.mark.slow
def test_peak_memory_is_of_the_whole_process(plan, theirs):
    one = replace(plan, tasks=("memory",), texts=("documentation",))
    ours, peers = run_benchmark(one, others=[theirs])
    assert set(ours) >= CONTRACT
    assert ours["model"] == "tiny.gguf"
    assert ours["process_nbytes"] >= ours["peak_nbytes"] >= ours["before_nbytes"] > 10**8
    assert peers["process_nbytes"] == peers["peak_nbytes"] > 10**7


def test_what_is_in_the_file_is_not_measured_again(plan, theirs, tmp_path):
    path = tmp_path / "rows.jsonl"
    one = replace(plan, tasks=("prefill", "decode"), texts=("code",))
    notes: list[str] = []
    first = run_benchmark(one, file=RowFile(path, KEY), others=[theirs])
    again = run_benchmark(one, file=RowFile(path, KEY), others=[theirs], on_note=notes.append)
    assert again == first
    assert notes == []


def test_a_peer_reads_and_answers_what_ours_does(plan, theirs):
    model, (cell, _) = load(plan, None), plan.cells()
    (asked, _) = draw_needles(model, cell, 2)
    text = model.loaded.backend.decode(asked.ids)
    assert text.count(asked.number) == 1
    assert 250 <= len(asked.ids) <= 300
    (ours,) = plan.contenders()
    ids = torch.tensor([asked.ids])
    assert theirs.answer(model.model, ids, 6)[0] == ours.answer(model.model, ids, 6)[0]
    rows = run_benchmark(plan, others=[theirs])
    assert [row["text"] for row in rows] == ["documentation", "documentation", "code", "code"]
    assert all(len(row["answers"]) == row["samples"] == 2 for row in rows)


def test_answers_are_counted_where_the_full_cache_answers():
    shared = {"task": "needles", "model": "m", "text": "book", "length": 4000, "kv_bits": None}
    rows = [
        shared | {"contender": "openvino", "policy": policy, "budget": budget, "answers": answers}
        for policy, budget, answers in (
            ("full", None, [1, 1, 0, 1]),
            ("eviction", "1024", [0, 1, 1, 0]),
        )
    ]
    line = gguf.needles(rows).splitlines()[-1]
    assert line == "| m | book | 4 000 | 1024 | openvino eviction 1024 | 1 of 3 | 3 of 4 |"
    assert gguf.needles([]) == "Not measured."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "tiny", "--peers", "llama.cpp"), "llama.cpp opens a GGUF file"),
        (("--shape", "tiny", "--texts", "code"), "give --model"),
        (("--model", "FILE", "--needles", "3"), "texts to hide them in"),
        (("--model", "FILE", "--peers", "openvino", "--batches", "2"), "one prompt at a time"),
        (("--model", "FILE", "--peer-python", "openvino"), "takes PEER=PYTHON"),
        (("--model", "FILE", "--peer-python", "vllm=x"), "none of the peers"),
        (
            ("--model", "FILE", "--texts", "code", "--lengths", "900", "--tasks", "prefill"),
            "512 positions",
        ),
    ],
)
def test_wrong_use_is_one_line(file, arguments, message):
    done = call(*(str(file) if each == "FILE" else each for each in arguments))
    assert done.exit_code == 2 or "positions" in message
    assert message in done.stderr
    assert done.stdout == ""


def test_a_text_that_is_too_short(file, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("A short text.")
    settings = {"texts": (str(path),), "lengths": (200,), "tasks": ("prefill",)}
    plan = Benchmark(model=str(file), peers=(), **settings)
    with pytest.raises(UsageError, match="fewer than the 200"):
        run_benchmark(plan)
