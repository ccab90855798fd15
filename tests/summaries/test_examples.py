"""The examples run as they stand, offline; with a tiny random model and short texts, so that they
are quick.
"""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("summarize_*.py")), ids=lambda path: path.stem
)
def test_examples_are_short_and_say_what_the_bundled_model_cannot(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    assert "The bundled model only looks facts up and cannot really summarize" in text


def test_one_pass(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.summarize_one_pass import main

    summary = main(str(tiny_folder), characters=2500, sentences=1)
    told = capsys.readouterr().out
    assert (summary.method, summary.calls) == ("one-pass", 1)
    assert "4096 positions: one-pass" in told
    assert summary.text in told
    assert f"kept {summary.cache.stored_tokens} of {summary.cache.seen_tokens} tokens" in told


def test_map_reduce_over_a_text_longer_than_the_context(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples.summarize_map_reduce import main
    from tests.tiny import save_tiny

    summary = main(str(save_tiny(tmp_path / "model", positions=1024)), sentences=1)
    assert summary.method == "map-reduce"
    assert sum(part.tokens for part in summary.parts) > 1024
    assert f"map-reduce in {len(summary.parts)} parts" in capsys.readouterr().out


def test_refine_with_a_focus(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples.summarize_refine import main

    work = tmp_path / "work.jsonl"
    summary = main(str(tiny_folder), characters=1500, part_tokens=300, work=work)
    assert (summary.method, summary.calls) == ("refine", len(summary.parts))
    assert len(summary.parts) >= 3
    assert not work.exists()
    assert f"after part {len(summary.parts)}: " in capsys.readouterr().out
