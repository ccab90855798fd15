"""Callers that come at once are answered together; each gets the answer that it would get alone,
and leaves alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from namm_llm.engine import forward
from namm_llm.runner import Runner

PROMPTS = [f"The vault {n} holds" for n in range(8)]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences went through the model, in each pass."""
    passes: list[int] = []
    call = forward._logits

    def counted(model: Any, cache: Any, ids: Any, positions: Any, *, keep: int) -> Any:
        passes.append(len(ids))
        return call(model, cache, ids, positions, keep=keep)

    monkeypatch.setattr(forward, "_logits", counted)
    return passes


@pytest.fixture
def busy(runner: Runner) -> Any:
    """The worker is held until `set`, so that all callers of a test are there when it begins."""
    freed = threading.Event()
    threading.Thread(target=lambda: runner.session.call(freed.wait)).start()
    return freed


@pytest.mark.parametrize(
    "eviction", [{}, {"policy": "h2o", "budget": 0.5, "interval": 16}], ids=["full", "h2o"]
)
def test_waiting_callers_share_the_passes(
    make_runner: Callable[..., Runner], forwards: list[int], eviction: dict[str, Any]
) -> None:
    runner = make_runner(**eviction)
    alone = [runner.generate(prompt, max_tokens=12) for prompt in PROMPTS]
    del forwards[:]
    freed = threading.Event()
    threading.Thread(target=lambda: runner.session.call(freed.wait)).start()
    streams = [runner.stream(prompt, max_tokens=12) for prompt in PROMPTS]
    freed.set()
    assert ["".join(piece.text for piece in stream) for stream in streams] == [
        one.text for one in alone
    ]
    assert [stream.result.usage for stream in streams] == [one.usage for one in alone]
    assert forwards == [1] * 8 + [8] * 11


def test_one_reader_who_leaves_does_not_end_the_others(runner: Runner, busy: Any) -> None:
    leaving, staying = (
        runner.stream(PROMPTS[0], max_tokens=30),
        runner.stream(PROMPTS[1], max_tokens=30),
    )
    cancel = threading.Event()
    cancelled = runner.stream(PROMPTS[2], max_tokens=4000, cancel=cancel)
    busy.set()
    next(leaving)
    leaving.close()
    next(cancelled)
    cancel.set()
    text = "".join(piece.text for piece in staying)
    assert (staying.result.finish_reason, text) == (
        "length",
        runner.generate(PROMPTS[1], max_tokens=30).text,
    )
    list(cancelled)
    assert cancelled.result.finish_reason == "cancelled"


def test_an_error_reaches_all_who_wait_for_it(
    runner: Runner, busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("kernel lost")

    monkeypatch.setattr(forward, "_logits", fail)
    streams = [runner.stream(prompt) for prompt in PROMPTS[:3]]
    busy.set()
    for stream in streams:
        with pytest.raises(RuntimeError, match="kernel lost"):
            list(stream)
    monkeypatch.undo()
    assert runner.generate("A", max_tokens=1).usage.output_tokens == 1


def test_questions_about_a_document_and_prompts_wait_side_by_side(
    runner: Runner, busy: Any
) -> None:
    busy.set()
    document = runner.read("The fox is red. The dog is brown.")
    alone = [document.ask("Who?", max_tokens=9).text, runner.generate("A", max_tokens=9).text]
    freed = threading.Event()
    threading.Thread(target=lambda: runner.session.call(freed.wait)).start()
    streams = [document.stream("Who?", max_tokens=9), runner.stream("A", max_tokens=9)]
    freed.set()
    assert ["".join(piece.text for piece in stream) for stream in streams] == alone


def test_each_answer_of_a_batch_ends_with_its_own_last_token(
    runner: Runner, busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, passes, gate = forward._logits, [], threading.Event()

    def gated(*args: Any, **options: Any) -> Any:
        passes.append(1)
        assert len(passes) < 10 or gate.wait(60), "the short answer did not come"
        return call(*args, **options)

    monkeypatch.setattr(forward, "_logits", gated)
    short, long = runner.stream("A", max_tokens=3), runner.stream(PROMPTS[0], max_tokens=30)
    busy.set()
    list(short)
    assert short.result.usage.output_tokens == 3
    gate.set()
    list(long)
    assert long.result.usage.output_tokens == 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_answers_none_of_its_parents_callers(runner: Runner) -> None:
    expected, document = runner.generate("A", max_tokens=3).text, runner.read("The fox is red.")
    freed, fork = threading.Event(), multiprocessing.get_context("fork")
    threading.Thread(target=lambda: runner.session.call(freed.wait)).start()
    waiting = document.stream("Who?", max_tokens=3)  # cannot share a batch with the child's prompt
    parent, child = fork.Pipe()
    process = fork.Process(target=lambda: child.send(runner.generate("A", max_tokens=3).text))
    process.start()
    try:
        assert parent.poll(60)
        assert parent.recv() == expected
        process.join(10)
    finally:
        process.kill()
        freed.set()
    assert waiting.finished().usage.output_tokens == 3


async def test_streams_for_asyncio_do_not_block_the_loop(runner: Runner) -> None:
    alone = [runner.generate(prompt, max_tokens=12).text for prompt in PROMPTS]

    async def read(prompt: str) -> str:
        return "".join([piece.text async for piece in runner.stream(prompt, max_tokens=12)])

    assert await asyncio.gather(*map(read, PROMPTS)) == alone


async def test_a_cancelled_task_stops_the_model(runner: Runner, forwards: list[int]) -> None:
    async def read() -> None:
        async for _ in runner.stream("The quick", max_tokens=4000):
            pass

    task = asyncio.create_task(read())
    while len(forwards) < 4 and not task.done():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = len(forwards)
    await asyncio.to_thread(runner.session.call, lambda: None)
    assert len(forwards) <= count + 1


def test_other_cache_settings_on_the_same_weights(runner: Runner, long_text: str) -> None:
    other = runner.with_cache("h2o", budget=0.5, interval=32)
    assert other.loaded is runner.loaded
    assert other.session._worker is runner.session._worker
    assert other.generate(long_text, max_tokens=2).cache.kept_fraction < 0.65
    assert runner.generate(long_text, max_tokens=2).cache.kept_fraction == 1
    with ThreadPoolExecutor(2) as pool:
        both = list(
            pool.map(
                lambda one: one.generate(long_text, max_tokens=5).cache.policy, [runner, other]
            )
        )
    assert both == ["full", "h2o, budget 0.5, head"]
