"""Answers decoded in fixed shapes, one step ahead of the host: what a CUDA graph repeats, run
eagerly, against plain calls of the model.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from namm_llm.engine.graph.decoding import GraphDecoding
from namm_llm.engine.results import Generation
from namm_llm.errors import ModelError, UsageError
from namm_llm.runner import Runner

EVICTING = {"policy": "replay", "budget": 40, "interval": 16}
SETTINGS = [
    {},
    EVICTING,
    {**EVICTING, "kv_bits": 8},
    {"policy": "h2o", "budget": 0.3, "interval": 16},
]
SAMPLED = {"temperature": 1.5, "top_p": 0.95, "seed": 5, "repetition_penalty": 1.2}


def same(found: Generation, expected: Generation) -> None:
    assert (found.text, found.finish_reason, found.usage) == (
        expected.text,
        expected.finish_reason,
        expected.usage,
    )
    numbers = (
        "seen_tokens",
        "stored_tokens",
        "kept_fraction",
        "eviction_steps",
        "policy",
        "full_nbytes",
    )
    assert {name: getattr(found.cache, name) for name in numbers} == {
        name: getattr(expected.cache, name) for name in numbers
    }


@pytest.fixture(params=["eager", pytest.param(True, id="graph", marks=pytest.mark.gpu)])
def pair(
    request: pytest.FixtureRequest, make_runner: Callable[..., Runner]
) -> Callable[..., tuple[Runner, Runner]]:
    """The same runner twice: in fixed shapes, recorded on a GPU, and with plain calls."""
    if request.param is True and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return lambda **settings: (
        make_runner(**settings, cuda_graphs=request.param),
        make_runner(**settings, cuda_graphs=False),
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_the_same_answers_across_updates(
    pair: Any, long_text: str, settings: dict[str, Any], sampling: dict[str, Any]
) -> None:
    """Answers end at several places of an interval; the last one goes over two updates."""
    fixed, plain = pair(**settings)
    assert fixed.decoding in ("fixed shapes", "CUDA graphs")
    assert plain.decoding == "plain calls: cuda_graphs=False"
    for count in (1, 6, 34):
        prompt = long_text[: 400 + 7 * count]
        same(
            fixed.generate(prompt, max_tokens=count, **sampling),
            plain.generate(prompt, max_tokens=count, **sampling),
        )


@pytest.mark.parametrize("settings", [{}, EVICTING, {**EVICTING, "kv_bits": 8}], ids=str)
def test_batches_of_unequal_prompts_and_answers(
    pair: Any, long_text: str, settings: dict[str, Any]
) -> None:
    fixed, plain = pair(**settings)
    prompts = [long_text[:size] for size in (40, 300, 520, 90, 700)]
    for found, expected in zip(
        *(runner.generate_batch(prompts, max_tokens=30, **SAMPLED) for runner in (fixed, plain)),
        strict=True,
    ):
        same(found, expected)


def test_rows_leave_a_batch_at_different_steps(pair: Any, long_text: str) -> None:
    """By a stop string, which is seen one step late, and by their own limits."""
    fixed, plain = pair(**EVICTING)
    prompts = [long_text[:size] for size in (300, 450, 520, 600)]
    answers = [plain.generate(prompt, max_tokens=40).text for prompt in prompts]
    stops = [answers[at][3 * at + 5 : 3 * at + 7] for at in range(3)]
    found, expected = (
        runner.generate_batch(prompts, max_tokens=40, stop=stops) for runner in (fixed, plain)
    )
    assert {answer.finish_reason for answer in expected} >= {"stop"}
    assert len({answer.usage.output_tokens for answer in expected}) > 1
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_a_prompt_goes_on_from_what_an_answer_left(tiny_folder: Path) -> None:
    """What ran ahead was taken back, so the kept prefix is the same."""
    fixed, plain = (
        Runner.load(tiny_folder, **EVICTING, cuda_graphs=how) for how in ("eager", False)
    )  # type: ignore[arg-type]
    history = [{"role": "user", "content": "Who signs travel requests? " * 6}]
    for _ in range(3):
        found, expected = fixed.chat(history, max_tokens=21), plain.chat(history, max_tokens=21)
        same(found, expected)
        history += [
            {"role": "assistant", "content": expected.text},
            {"role": "user", "content": "And then?"},
        ]
    assert expected.usage.cached_tokens > 60


@pytest.mark.parametrize("settings", [EVICTING, {**EVICTING, "kv_bits": 8}], ids=str)
def test_questions_to_a_memory_saved_and_opened_again(
    pair: Any, long_text: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    fixed, plain = pair(**settings)
    plain.read(long_text).save(tmp_path / "a.namm")
    questions = ["How many coins?", "Which vault holds the most of all coins?", "A fox"]
    memories = [runner.open(tmp_path / "a.namm") for runner in (fixed, plain)]
    for found, expected in zip(
        *(memory.ask_many(questions, max_tokens=24) for memory in memories), strict=True
    ):
        same(found, expected)
    for _ in range(2):  # asking leaves the memory as it was
        same(*(memory.ask(questions[0], max_tokens=40) for memory in memories))


def test_pieces_come_while_the_answer_is_computed(pair: Any, long_text: str) -> None:
    fixed, plain = pair(**EVICTING)
    found, expected = (
        [piece.text for piece in runner.stream(long_text, max_tokens=40)]
        for runner in (fixed, plain)
    )
    assert found == expected
    assert len(found) > 5


def test_cancelling_stops_within_a_token_and_keeps_what_was_told(pair: Any, long_text: str) -> None:
    fixed, _ = pair(**EVICTING)
    cancel = threading.Event()
    stream = fixed.stream(long_text, max_tokens=10_000, cancel=cancel)
    for number, _ in enumerate(stream):
        if number == 5:
            cancel.set()
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.usage.output_tokens < 2000
    same(*(runner.generate(long_text, max_tokens=5) for runner in pair(**EVICTING)))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_constraint_is_told_each_token_first(pair: Any, long_text: str, batch: int) -> None:
    pytest.importorskip("llguidance")
    fixed, plain = pair(**EVICTING)
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
        "required": ["n", "s"],
    }
    prompts = [long_text[: 300 + 50 * at] for at in range(batch)]
    options = {"max_tokens": 40, "json_schema": schema, **SAMPLED}
    for found, expected in zip(
        *(runner.generate_batch(prompts, **options) for runner in (fixed, plain)), strict=True
    ):
        same(found, expected)
        assert found.text.startswith("{")


def test_what_cannot_be_recorded_is_refused_or_said(
    make_runner: Callable[..., Runner], caplog: pytest.LogCaptureFixture
) -> None:
    if (runner := make_runner()).loaded.device.type != "cuda":
        assert runner.decoding == "plain calls: they need a model on a GPU, this one is on cpu"
        assert not caplog.records, "nobody expects graphs without a GPU"
        with pytest.raises(
            ModelError, match="cannot be decoded with cuda_graphs=True: they need a model on a GPU"
        ):
            make_runner(cuda_graphs=True)
    with pytest.raises(
        UsageError, match="cuda_graphs must be None, True, False or 'eager', not 'yes'"
    ):
        make_runner(cuda_graphs="yes")


def test_a_recording_that_fails_is_said_once(
    make_runner: Callable[..., Runner], caplog: pytest.LogCaptureFixture
) -> None:
    decoding = GraphDecoding(make_runner().loaded, "eager")
    decoding._insists = False
    with caplog.at_level(logging.WARNING, "namm_llm"):
        for _ in range(2):
            decoding._give_up(
                RuntimeError(
                    "operation not permitted when stream is capturing\nCUDA kernel errors might be "
                    "..."
                )
            )
    assert len(caplog.records) == 1
    assert caplog.messages[0].endswith(
        "is decoded without CUDA graphs: one could not be recorded (operation not permitted when "
        "stream is capturing)."
    )
    assert decoding.describe().startswith("plain calls: one could not be recorded")
