"""One answer as the routes see it: how far its prompt is read, its text, and its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from namm_llm.engine.answer import Request
from namm_llm.engine.results import Generation, Progress, RowPiece, TokenLogprob, Usage
from namm_llm.models.tool_stream import ToolCallStream
from namm_llm.models.tools import Tool, ToolCall
from namm_llm.server.errors import of_error
from namm_llm.server.service import Service

LOG = logging.getLogger("namm_llm.server")
T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """Text of an answer that is no tool call."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Whole:
    """The end of an answer."""

    generation: Generation
    report: dict[str, object]
    """The `namm` block."""
    calls: tuple[ToolCall, ...] = ()


Part = Progress | Text | Whole


@dataclass(frozen=True)
class Numbered(Generic[T]):
    """A part of one of several answers."""

    index: int
    part: T


async def reply(
    service: Service, request: Request, tools: Sequence[Tool] = (), *, parallel: bool = True
) -> AsyncGenerator[Part, None]:
    """The parts of one answer, `Whole` last. Leaving early stops the model.

    parallel: whether the answer may hold several tool calls.
    """
    calls = ToolCallStream(tools, parallel=parallel)
    logprobs, sent = list[TokenLogprob](), 0
    with service.metrics.answering():
        async with aclosing(service.runner.session.events(request)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield event
                elif isinstance(event, RowPiece):
                    logprobs += event.piece.logprobs
                    if text := calls.feed(event.piece.text):
                        yield Text(text, tuple(logprobs))
                        sent += len(logprobs)
                        logprobs.clear()
                else:
                    service.metrics.count(event.generation)
                    rest, found = calls.end()
                    # also of tokens that became no text, such as half a character at the end
                    left = (event.generation.logprobs or ())[sent:]
                    if rest or left:
                        yield Text(rest, left)
                    report = service.report(request, event.generation)
                    yield Whole(event.generation, report, tuple(found))


async def replies(
    service: Service, requests: Sequence[Request], tools: Sequence[Tool] = (), **options: Any
) -> AsyncGenerator[Numbered[Part], None]:
    """The parts of several answers as they come."""
    arrived: asyncio.Queue[Numbered[Part] | BaseException | None] = asyncio.Queue()

    async def follow(index: int, request: Request) -> None:
        try:
            async with aclosing(reply(service, request, tools, **options)) as parts:
                async for part in parts:
                    arrived.put_nowait(Numbered(index, part))
        except Exception as error:
            arrived.put_nowait(error)
        else:
            arrived.put_nowait(None)

    tasks = [asyncio.create_task(follow(*each)) for each in enumerate(requests)]
    try:
        left = len(tasks)
        while left:
            item = await arrived.get()
            if isinstance(item, BaseException):
                raise item
            left -= item is None
            if item is not None:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def collected(
    parts: AsyncGenerator[Numbered[Part], None], count: int
) -> list[tuple[str, list[TokenLogprob], Whole]]:
    """The whole text, log-probabilities and end of each of `count` answers."""
    texts, ends = [""] * count, dict[int, Whole]()
    logprobs = [list[TokenLogprob]() for _ in range(count)]
    async with aclosing(parts):
        async for each in parts:
            if isinstance(each.part, Text):
                texts[each.index] += each.part.text
                logprobs[each.index] += each.part.logprobs
            elif isinstance(each.part, Whole):
                ends[each.index] = each.part
    return [(texts[at], logprobs[at], ends[at]) for at in range(count)]


def usage_of(generations: Sequence[Generation]) -> dict[str, Any]:
    """`usage` of a completion with several choices of one prompt."""
    first: Usage = generations[0].usage
    written = sum(each.usage.output_tokens for each in generations)
    return {
        "prompt_tokens": first.input_tokens,
        "completion_tokens": written,
        "total_tokens": first.input_tokens + written,
        "prompt_tokens_details": {"cached_tokens": first.cached_tokens},
    }


class EventStream(StreamingResponse):
    """Server-sent events. What `events` raises becomes one last event with the error.

    held: what is released when the last event was sent, or the client has left.
    """

    def __init__(
        self, service: Service, events: AsyncGenerator[str, None], held: ExitStack
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(_guarded(service, events), media_type="text/event-stream", headers=headers)
        self._events = events
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._held.close()
            await self._events.aclose()


async def _guarded(
    service: Service, events: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    try:
        async for event in events:
            yield event
    except Exception as error:
        LOG.exception("a stream failed")
        yield data(of_error(error, service.memories.told).body)


def data(value: Mapping[str, Any], event: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False)}\n\n"


def comment(reading: Progress) -> str:
    """What keeps a connection open while a prompt is read; clients skip it."""
    return f": {reading.done}/{reading.total} tokens read\n\n"


DONE = "data: [DONE]\n\n"
