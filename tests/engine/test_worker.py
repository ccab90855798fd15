"""Threads, cancelling and failures: every reader gets its answer or its error, and a reader who
leaves costs one token.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from namm_llm.engine import forward
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.worker import Worker
from namm_llm.errors import UsageError
from namm_llm.runner import Runner


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every pass through the model."""
    passes: list[int] = []
    call = forward._logits

    def counted(*args: object, **options: object) -> object:
        passes.append(1)
        return call(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(forward, "_logits", counted)
    return passes


def counting(cancel: CancelFlag) -> Iterator[int]:
    number = 0
    while not cancel.is_set():
        yield number
        number += 1
        time.sleep(0.001)


def test_a_ticket_gives_what_the_job_yields() -> None:
    worker = Worker()
    assert list(worker.submit(lambda _: iter([1, 2, 3]))) == [1, 2, 3]
    assert worker.call(threading.current_thread) is not threading.current_thread()
    worker.close()


def test_what_a_job_raises_reaches_its_reader_and_the_worker_goes_on() -> None:
    worker = Worker()

    def broken(_: CancelFlag) -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    ticket = worker.submit(broken)
    assert next(ticket) == 1
    with pytest.raises(KeyError, match="lost"):
        next(ticket)
    assert list(ticket) == []
    assert worker.call(lambda: 5) == 5
    worker.close()


@pytest.mark.parametrize("leave", ["close", "drop", "cancel"])
def test_a_reader_that_leaves_frees_the_worker(leave: str) -> None:
    worker, cancel = Worker(), threading.Event()
    ticket = worker.submit(counting, cancel)
    assert next(ticket) == 0
    if leave == "close":
        ticket.close()
    elif leave == "cancel":
        cancel.set()
    else:
        del ticket
        gc.collect()
    assert worker.call(lambda: "free") == "free"
    worker.close()


def test_a_worker_that_nobody_holds_ends_its_thread() -> None:
    worker = Worker()
    thread = worker._thread
    del worker
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_closed_stream_stops_within_one_token(runner: Runner, forwards: list[int]) -> None:
    stream = runner.stream("The quick", max_tokens=4000)
    next(stream)
    stream.close()
    count = len(forwards)
    runner.session.call(lambda: None)
    assert len(forwards) <= count + 1
    assert list(stream) == []
    with pytest.raises(UsageError, match="read the stream to its end before asking for its result"):
        _ = stream.result


def test_a_dropped_stream_stops_within_one_token(runner: Runner, forwards: list[int]) -> None:
    stream = runner.stream("The quick", max_tokens=4000)
    next(stream)
    del stream
    gc.collect()
    count = len(forwards)
    runner.session.call(lambda: None)
    assert len(forwards) <= count + 1


def test_a_cancelled_answer_is_kept(runner: Runner, forwards: list[int]) -> None:
    cancel = threading.Event()
    stream = runner.stream("The quick", max_tokens=4000, cancel=cancel)
    first = next(stream)
    cancel.set()
    count = len(forwards)
    text = first.text + "".join(piece.text for piece in stream)
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.text == text
    assert len(forwards) <= count + 1
    assert stream.result.usage.output_tokens <= len(forwards)


def test_a_long_prompt_is_cancelled_within_one_chunk(
    make_runner: Callable[..., Runner], long_text: str, forwards: list[int]
) -> None:
    runner, cancel = make_runner(chunk=1), threading.Event()
    stream = runner.stream(long_text, cancel=cancel, on_progress=lambda done, total: cancel.set())
    assert list(stream) == []
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.usage.output_tokens == 0
    assert len(forwards) < runner.count_tokens(long_text)


def test_an_answer_cancelled_before_its_turn(runner: Runner, forwards: list[int]) -> None:
    cancel = threading.Event()
    cancel.set()
    found = runner.generate("The quick", cancel=cancel)
    assert (found.text, found.finish_reason, found.cache.seen_tokens, len(forwards)) == (
        "",
        "cancelled",
        0,
        0,
    )


def test_a_callback_that_raises_stops_the_answer(runner: Runner, long_text: str) -> None:
    def leave(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.generate(long_text, on_progress=leave)
    with pytest.raises(KeyboardInterrupt):
        runner.read(long_text, on_progress=leave)
    assert runner.generate("A", max_tokens=1).usage.output_tokens == 1


def test_what_the_model_raises_reaches_the_reader(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("kernel lost")

    monkeypatch.setattr(forward, "_logits", fail)
    with pytest.raises(RuntimeError, match="kernel lost"):
        runner.generate("The quick")
    monkeypatch.undo()
    assert runner.generate("The quick", max_tokens=1).usage.output_tokens == 1


def test_eight_threads_get_the_answers_they_get_alone(runner: Runner) -> None:
    prompts = [f"The vault {n} holds" for n in range(8)]
    alone = [runner.generate(prompt, max_tokens=12).text for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        assert (
            list(pool.map(lambda prompt: runner.generate(prompt, max_tokens=12).text, prompts))
            == alone
        )


def test_a_stream_may_be_read_by_several_threads(runner: Runner) -> None:
    stream = runner.stream("The quick", max_tokens=10)
    text = ""
    with ThreadPoolExecutor(4) as pool:
        while (piece := pool.submit(next, stream, None).result()) is not None:
            text += piece.text
    assert text == stream.result.text


def test_weights_are_freed_with_their_last_runner(tmp_path: Path) -> None:
    from tests.tiny import save_tiny

    runner = Runner.load(save_tiny(tmp_path / "model"))
    runner.generate("A", max_tokens=1)
    weights, thread = weakref.ref(runner.loaded.model), runner.session._worker._thread
    del runner
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert weights() is None


def test_the_interpreter_ends_while_an_answer_is_computed(tiny_folder: Path) -> None:
    code = (
        f"from namm_llm.runner import Runner; runner = Runner.load({str(tiny_folder)!r})\n"
        "stream = runner.stream('The quick', max_tokens=4000); next(stream)\n"
        "waiting = runner.stream('A', max_tokens=4000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own(runner: Runner) -> None:
    expected = runner.generate("The", max_tokens=4).text
    parent, child = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: child.send(runner.generate("The", max_tokens=4).text)
    )
    process.start()
    try:
        assert parent.poll(60)
        assert parent.recv() == expected
    finally:
        process.kill()
        process.join()
