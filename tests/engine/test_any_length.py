"""Texts longer than the positions that a model was trained on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from namm_llm import ContextError, ModelError, Runner, UsageError
from tests.tiny import TEXT, save_tiny

LONG = TEXT * 30  # more than a thousand tokens
SETTINGS = {"policy": "h2o", "interval": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("short") / "short", positions=256)


def test_a_budget_in_tokens_reads_any_length_and_says_so_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner.load(folder, budget=64, **SETTINGS)
    assert runner.session.reads_any_length
    with caplog.at_level(logging.WARNING, "namm_llm"):
        document = runner.read(LONG)
        answer = document.ask("Who signs?", max_tokens=300)
        runner.chat([{"role": "user", "content": LONG}], max_tokens=3)
    assert answer.usage.output_tokens == 300
    seen = document.info()["seen_tokens"]
    assert seen > 1_000
    assert [line for line in caplog.messages if "trained on 256 positions" in line][1:] == []
    # places are those of the text
    places = document.cache.managed[0].sequences[0].retained.positions
    assert int(places.max()) == seen - 1


def test_pieces_of_a_stream_give_the_memory_of_the_whole(folder: Path) -> None:
    runner = Runner.load(folder, budget=64, **SETTINGS)
    whole, pieces = runner.read(LONG), runner.read(iter([LONG[:700], LONG[700:]]))
    assert whole.ask("Who?", max_tokens=40).text == pieces.ask("Who?", max_tokens=40).text


def test_a_saved_memory_goes_on_past_the_trained_positions(folder: Path, tmp_path: Path) -> None:
    runner = Runner.load(folder, budget=64, **SETTINGS)
    document = runner.read(LONG)
    document.save(tmp_path / "long.namm")
    opened = Runner.load(folder).open(tmp_path / "long.namm")
    assert opened.ask("Who?", max_tokens=40).text == document.ask("Who?", max_tokens=40).text
    assert (
        opened.extend(LONG).ask("Who?", max_tokens=40).text
        == document.extend(LONG).ask("Who?", max_tokens=40).text
    )


def test_graphs_decode_the_same(folder: Path) -> None:
    runners = [Runner.load(folder, budget=64, cuda_graphs=g, **SETTINGS) for g in (False, "eager")]
    first, second = (runner.read(LONG).ask("Who?", max_tokens=100).text for runner in runners)
    assert first == second


@pytest.mark.parametrize(
    "settings", [{}, {"budget": 0.25}, {"budget": 64, "positions": "original"}]
)
def test_without_it_the_error_names_three_ways_out(folder: Path, settings: dict) -> None:
    runner = Runner.load(folder, **settings, **(SETTINGS if settings else {}))
    with pytest.raises(ContextError, match=r"budget=2048.*summary.*rope_scaling='yarn:4'"):
        runner.read(LONG)


def test_a_share_of_a_long_text_is_read_where_it_is_asked_for(folder: Path) -> None:
    runner = Runner.load(folder, budget=0.5, positions="compact", **SETTINGS)
    assert runner.read(LONG).info()["stored_tokens"] <= 256 - 64


def test_rope_scaling_stretches_the_positions(folder: Path) -> None:
    plain, scaled = Runner.load(folder), Runner.load(folder, rope_scaling="yarn:8")
    assert (plain.context_window, scaled.context_window) == (256, 2048)
    assert plain.fingerprint != scaled.fingerprint
    assert scaled.read(LONG[:1500]).ask("Who?", max_tokens=40).text
    with pytest.raises(UsageError, match="such as yarn:4, not 'yarn'"):
        Runner.load(folder, rope_scaling="yarn")


def test_positions_that_are_stretched_already_are_not_stretched_again(tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = save_tiny(tmp_path / "scaled")
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = {**config.rope_parameters, "rope_type": "linear", "factor": 2.0}
    config.save_pretrained(folder)
    with pytest.raises(ModelError, match="scales its positions already"):
        Runner.load(folder, rope_scaling="yarn:2")
