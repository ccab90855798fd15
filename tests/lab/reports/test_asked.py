"""Needles and facts: asked of texts of any length, and of documents that are joined."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from namm_lab.reports import results
from namm_lab.reports.__main__ import main
from namm_lab.reports.asked import shown
from namm_lab.reports.joined import sharpened
from namm_lab.rows import read_rows
from namm_lab.tasks.hidden import Hidden, depth_of, is_needle
from namm_lab.tasks.registry import draw_samples
from namm_llm import Runner


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def done(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_half_of_what_is_hidden_are_needles_and_each_is_stated_once() -> None:
    (sample,) = draw_samples(Hidden("hidden"), 600, count_tokens=lambda text: len(text.split()))
    assert [is_needle(each) for each in sample.questions].count(True) == 4
    for each in sample.questions:
        assert sample.document.count(each.answer) == 1
        assert each.score(each.answer) == 1
        assert 0 <= depth_of(sample, each) < 1
    depths = [depth_of(sample, each) for each in sample.questions]
    assert depths == sorted(depths)
    kinds = [each.prompt for each in sample.questions if not is_needle(each)]
    assert len({prompt.partition(" of ")[0] for prompt in kinds}) == 4


def test_scores_are_shown_by_kind_and_depth() -> None:
    row = {"needles": [True, False], "depths": [0.1, 0.99], "scores": [1.0, 0.0]}
    assert shown([row, row]) == (
        "needles 1.000 of 2, facts 0.000 of 2, first 1.000 of 2, last 0.000 of 2"
    )


def test_a_document_is_read_once_and_the_full_cache_reads_what_fits(
    tiny_folder: Path, kept: Path
) -> None:
    options = ["asked", "--model", str(tiny_folder), "--documents", "1", "--questions", "4"]
    options += ["--budget", "64", "--length", "300", "--length", "5000"]
    first, second = done(*options), done(*options)
    rows = read_rows(kept / "asked.jsonl")
    assert [(row["policy"], row["length"]) for row in rows] == [
        ("full", 300),
        ("replay", 300),
        ("replay", 5000),
    ]
    assert all(len(row["scores"]) == len(row["depths"]) == 4 for row in rows)
    assert first == second
    assert "replay, 5000 tokens, 1 documents: needles " in first


def test_joined_documents_beside_one_reading_of_them(tiny_folder: Path, kept: Path) -> None:
    sizes = ["--length", "300", "--count", "2", "--questions", "2", "--temperature", "0.8"]
    found = done("joined", "--model", str(tiny_folder), *sizes)
    rows = read_rows(kept / "joined.jsonl")
    assert [row["way"] for row in rows] == ["one go", "joined, 0.8"]
    assert all(len(row["scores"]) == 4 for row in rows)
    assert "group 0, joined, 0.8: " in found
    assert done("joined", "--model", str(tiny_folder), *sizes) == found
    assert read_rows(kept / "joined.jsonl") == rows


def test_a_temperature_divides_all_keys_but_those_before_the_text(tiny_folder: Path) -> None:
    runner = Runner.load(tiny_folder)
    document = runner.read("The vault holds coins and a fox.")
    head = runner.session.format.head_tokens
    both = runner.combine([document, document])
    for layer, other in zip(both.cache.managed, sharpened(both, 0.5).cache.managed, strict=True):
        was, now = layer.sequences[0].retained, other.sequences[0].retained
        first = was.positions < head
        assert torch.equal(now.keys[first], was.keys[first])
        assert torch.equal(now.keys[~first], was.keys[~first] * 2)
        assert (~first).any()
