"""Whole benchmarks on the least of models."""

from __future__ import annotations

import json

import pytest
import torch

from namm_lab.bench import KEY, Benchmark, draw_rows, run_benchmark
from namm_lab.bench.contenders import PEERS, missing, peer_contender
from namm_lab.bench.plan import Cell
from namm_lab.bench.shapes import random_ids, random_model, shape_named
from namm_lab.rows import RowFile
from tests.lab.bench.test_rows import CONTRACT

SHORT = {"lengths": (150,), "interval": 64, "runs": 3, "decoded": 4}
STAGES = {"observe", "score", "select", "compact", "policy"}


@pytest.fixture
def plan(least) -> Benchmark:
    return Benchmark(shape=least, tasks=("prefill", "decode"), **SHORT)


def test_every_contender_is_measured_and_has_the_fields_of_the_contract(plan):
    seen = []
    rows = run_benchmark(plan, on_row=lambda row, done, total: seen.append((done, total)))
    names = [
        "transformers",
        "namm-llm",
        "transformers-whole",
        "transformers-generate",
        "transformers-fp8",
    ]
    assert [row["contender"] for row in rows] == names + [
        name for name in names if name != "transformers-generate"
    ]
    assert seen == [(n, 9) for n in range(1, 10)]
    for row in rows:
        assert set(row) >= CONTRACT
        assert len(row["speedups"]) == 3
        json.dumps(row)
    ours = rows[1]
    assert (ours["policy"], ours["budget"], ours["model"]) == ("replay", "0.25", "least")
    assert set(ours["shares"]) >= STAGES
    assert 0 < ours["shares"]["policy"] < 1
    assert ours["kept_fraction"] == pytest.approx(
        (32 + 22) / 150, abs=0.01
    )  # a quarter of 128, and 22 in the window
    assert rows[0]["nbytes"] == rows[0]["full_nbytes"] == ours["full_nbytes"]
    assert rows[4]["nbytes"] < 0.3 * rows[0]["nbytes"]  # 8 of 32 bits


def test_what_is_in_the_file_is_not_measured_again(plan, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = run_benchmark(plan, file=RowFile(path, KEY))
    again: list[str] = []
    assert run_benchmark(plan, file=RowFile(path, KEY), on_note=again.append) == rows
    assert again == []
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(line for line in lines if json.loads(line)["contender"] != "namm-llm") + "\n"
    )
    rest = run_benchmark(plan, file=RowFile(path, KEY), on_note=again.append)
    assert [row["contender"] for row in rest] == [row["contender"] for row in rows]
    assert [old == new for old, new in zip(rows, rest, strict=True)] == [
        row["contender"] != "namm-llm" for row in rows
    ]
    assert {note.partition(": ")[2] for note in again if ": " in note} == {
        "transformers",
        "namm-llm replay 0.25",
    }
    assert len(path.read_text().splitlines()) == len(lines)


@pytest.mark.parametrize("name", ["transformers", *PEERS])
def test_peers_read_and_decode_what_the_reference_does(least, name):
    if missing(name) is not None:
        pytest.skip(missing(name))
    model = random_model(shape_named(least), torch.float32)
    ids = random_ids(64, 2, 100)
    with torch.inference_mode():
        expected = model(ids).logits[:, -1:].argmax(-1)
    contender = peer_contender(name, 32)
    reading = contender.read(model, ids)
    if name != "transformers-quanto" and name != "transformers-hqq":
        assert torch.equal(reading.token, expected)
    assert reading.cache.get_seq_length() == 100
    if "decode" in contender.tasks:
        contender.decode(model, reading, 3)
        assert reading.cache.get_seq_length() == 100  # it was a copy that grew


def test_a_batch_on_quantised_weights(least):
    plan = Benchmark(
        shape=least,
        tasks=("prefill",),
        batches=(2,),
        quantizations=("nf4",),
        peers=("transformers",),
        **SHORT,
    )
    reference, ours = run_benchmark(plan)
    assert (ours["batch"], ours["quantization"]) == (2, "nf4")
    assert reference["full_nbytes"] == 2 * 2 * 2 * 2 * 16 * 4 * 150


def test_rows_become_a_picture(plan, tmp_path):
    rows = run_benchmark(plan)
    draw_rows(rows, tmp_path / "rows.png")
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_reads_the_same_tokens_each_time(least):
    assert torch.equal(random_ids(64, 1, 10), random_ids(64, 1, 10))
    assert Cell(None, 1, 10) == Cell(None, 1, 10)
