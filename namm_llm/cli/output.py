"""What a command prints: the answer on stdout; progress and statistics on stderr."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from namm_llm.cli.progress import ProgressBar

if TYPE_CHECKING:
    from namm_llm.config import SamplingParams
    from namm_llm.engine.results import Generation
    from namm_llm.engine.stream import Stream
    from namm_llm.summaries import Summary


Start = Callable[[threading.Event, Callable[[int, int], None]], "Stream"]
"""Begins an answer that the event cancels; reports how far the prompt is read."""


def answer(
    start: Start, *, as_json: bool, stats: bool, params: SamplingParams, more: str = "--max-tokens"
) -> Generation:
    """Prints an answer as it comes, or its JSON object when it is whole; then the statistics.
    Ctrl-C ends it within a token.

    more: what allows a longer answer, for the line on stderr that says that one was cut.
    """
    with interruptible() as cancel, ProgressBar() as bar:
        stream = start(cancel, bar.update)
        for piece in stream:
            bar.stop()
            if not as_json:
                click.echo(piece.text, nl=False)
    result = stream.result
    click.echo(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else "")
    if result.finish_reason == "length" and not as_json:
        tell_cut(result.usage.output_tokens, params.max_tokens, more)
    if result.looped and not as_json:
        tell(LOOPED)
    if stats:
        tell(statistics(result))
    return result


LOOPED = "(ended because it began to repeat itself; --no-stop-loops lets it go on)"


def tell(line: str) -> None:
    """To stderr: stdout has the answer alone."""
    click.echo(line, err=True)


def tell_cut(tokens: int, max_tokens: int, more: str) -> None:
    """Says that an answer is not whole, and what would let it be."""
    if tokens >= max_tokens:
        tell(f"(cut at {grouped(max_tokens)} tokens; {more} allows more)")
    else:
        tell(f"(cut after {grouped(tokens)} tokens, at the model's last trained position)")


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C interrupts at once."""
    cancel = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, before)


def statistics(result: Generation | Summary) -> str:
    """`142 tok · 18.3 tok/s · ttft 0.41 s · prompt 1 203 (1 150 cached) · KV 512/2 048 kept (−1 536
    evicted) 34 MB`.
    """
    usage, timings, cache = result.usage, result.timings, result.cache
    evicted = cache.seen_tokens - cache.stored_tokens
    parts = (
        f"{grouped(usage.output_tokens)} tok",
        f"{usage.output_tokens / timings.decode_seconds:.1f} tok/s"
        if timings.decode_seconds
        else "",
        f"ttft {timings.first_token_seconds:.2f} s",
        f"prompt {grouped(usage.input_tokens)}"
        + (f" ({grouped(usage.cached_tokens)} cached)" if usage.cached_tokens else ""),
        f"KV {grouped(cache.stored_tokens)}/{grouped(cache.seen_tokens)} kept"
        + (f" (−{grouped(evicted)} evicted)" if evicted else "")
        + f" {size(cache.nbytes)}",
    )
    return " · ".join(part for part in parts if part)


def grouped(number: float) -> str:
    """`12 345`."""
    return f"{round(number):,}".replace(",", " ")


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 answer`, `2 answers`."""
    return f"{grouped(number)} {noun if number == 1 else plural or f'{noun}s'}"


def size(nbytes: float) -> str:
    """`34 MB`, with a decimal below ten."""
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while nbytes >= 1000 and unit != "TB":
        nbytes, unit = nbytes / 1000, next(units)
    return f"{nbytes:.0f} {unit}" if nbytes >= 10 or unit == "B" else f"{nbytes:.1f} {unit}"
