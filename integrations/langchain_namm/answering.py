"""One question to a runner, or to the memory of a document: streams, whole answers and token
counts, the same for both classes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from namm_llm import Document, Generation, Piece, Runner, SamplingParams, Stream

Prompt = str | Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Session:
    """Who answers, and how. memory: of the document that questions are about."""

    runner: Runner
    params: SamplingParams
    memory: Document[Any, Any] | None

    def stream(self, prompt: Prompt, **tools: Any) -> Stream:
        """The answer to a text or to messages. tools: `tools` and `tool_choice`."""
        if self.memory is not None:
            stream: Stream = self.memory.stream(prompt, self.params, **tools)
            return stream
        return self.runner.stream(prompt, self.params, **tools)

    def batch(
        self, prompts: Sequence[str], cancel: threading.Event | None = None
    ) -> list[Generation]:
        """The answers to several texts, decoded together."""
        if self.memory is not None:
            return list(self.memory.ask_many(prompts, self.params, cancel=cancel))
        return self.runner.generate_batch(prompts, self.params, cancel=cancel)


def pieces(stream: Stream) -> Iterator[Piece]:
    """The pieces; leaving early stops the model."""
    with closing(stream):
        yield from stream


async def apieces(stream: Stream) -> AsyncIterator[Piece]:
    """The pieces without blocking the event loop; leaving early, or cancelling the task, stops the
    model.
    """
    reading = stream.__aiter__()
    try:
        async for piece in reading:
            yield piece
    finally:
        stream.close()


async def in_thread(function: Any, *args: Any) -> Any:
    """What `function(*args, cancel)` returns; `cancel` is set when the task is cancelled."""
    cancel = threading.Event()
    try:
        return await asyncio.to_thread(function, *args, cancel)
    except asyncio.CancelledError:
        cancel.set()
        raise
