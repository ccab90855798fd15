"""Long texts in a fixed budget: perplexity of the last tokens, and how old retained ones are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from namm_lab.reports import results
from namm_lab.reports.__main__ import main
from namm_lab.reports.beyond import compare, quarters
from namm_lab.rows import Row, read_rows
from namm_llm import UsageError

TEXT = "The quick brown fox jumps over the lazy dog, and the dog is not amused. " * 60


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "long.txt"
    path.write_text(TEXT)
    return path


def rows_of(folder: Path, text: Path, lengths: tuple[int, ...] = (120, 720)) -> list[Row]:
    settings = {"policies": ["streaming_llm", "random"], "budget": "64", "protect_recent": [8, 32]}
    return list(
        compare(model=str(folder), text=str(text), lengths=lengths, last=80, **settings)  # type: ignore[arg-type]
    )


def test_quarters_count_entries_of_all_layers_and_heads() -> None:
    held = torch.zeros(2, 2, 8, dtype=torch.bool)
    held[0, :, 0] = held[:, 0, 7] = True
    assert quarters(held) == [0.5, 0, 0, 0.5]


def test_a_row_for_each_policy_protection_and_length(tiny_folder: Path, text: Path) -> None:
    rows = rows_of(tiny_folder, text)
    assert [(row["policy"], row["protect_recent"], row["length"]) for row in rows] == [
        (policy, newest, length)
        for policy in ("streaming_llm", "random")
        for newest in (8, 32)
        for length in (120, 720)
    ]
    for row in rows:
        assert row["perplexity"] > 1
        assert sum(row[f"quarter {number}"] for number in (1, 2, 3, 4)) == pytest.approx(1)
    # 640 tokens before the last 80: of the first 512 stay 4 sinks and the newest 60, 128 follow
    newest = [row for row in rows if row["policy"] == "streaming_llm" and row["length"] == 720]
    for row in newest:
        assert row["quarter 1"] == pytest.approx(4 / 192)
        assert row["quarter 4"] == pytest.approx((32 + 128) / 192)


def test_a_text_that_is_too_short_is_refused(tiny_folder: Path, text: Path) -> None:
    with pytest.raises(UsageError, match="fewer than"):
        rows_of(tiny_folder, text, (100, 100_000))
    with pytest.raises(UsageError, match="more than the 80"):
        rows_of(tiny_folder, text, (80, 700))


def test_the_command_keeps_its_rows(
    tiny_folder: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    sizes = ["--budget", "64", "--length", "300", "--last", "50", "--policy", "streaming_llm"]
    done = CliRunner().invoke(main, ["beyond", str(text), "--model", str(tiny_folder), *sizes])
    assert done.exit_code == 0, done.output
    assert "streaming_llm, newest None, 300 tokens: perplexity " in done.output
    (row,) = read_rows(tmp_path / "results" / "beyond.jsonl")
    assert (row["text"], row["length"], row["last"]) == ("long.txt", 300, 50)
