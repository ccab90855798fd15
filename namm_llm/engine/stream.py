"""The reader's view of one answer: an iterator over its pieces, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

from namm_llm.engine.results import (
    Event,
    Generation,
    OnProgress,
    Piece,
    Progress,
    RowPiece,
    RowResult,
)
from namm_llm.engine.worker import End, Ticket
from namm_llm.errors import UsageError


class AsyncEvents:
    """The events of one answer for an event loop, without a thread of their own: progress, pieces,
    and the result last.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, event: Any) -> None:
        """Take an event, in the worker's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, event)

    async def until_end(self, stopped: threading.Event) -> AsyncGenerator[Event, None]:
        """The events; leaving early sets `stopped`. What the answer raised is raised here."""
        try:
            while not isinstance(event := await self._arrived.get(), End):
                yield event
            if event.error is not None:
                raise event.error
        finally:
            stopped.set()


class Stream:
    """An iterator over the pieces of one answer; after the last, `result` is the `Generation`.

    Computing begins at once, not with the first piece that is asked for. Closing or dropping the
    stream stops the model within one token. on_progress: called with the tokens of the prompt that
    are read and all of them, in the thread that iterates.
    """

    def __init__(self, ticket: Ticket[Event], on_progress: OnProgress | None = None) -> None:
        self._ticket = ticket
        self._on_progress = on_progress
        self._result: Generation | None = None
        self._closed = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Piece:
        if self._closed:
            raise StopIteration
        for event in self._ticket:
            match event:
                case RowPiece(piece=piece):
                    return piece
                case RowResult(generation=generation):
                    self._result = generation
                case Progress(done, total) if self._on_progress is not None:
                    self._on_progress(done, total)
        raise StopIteration

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The same pieces without blocking the event loop; leaving the loop early, or cancelling
        its task, closes the stream.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Piece | BaseException | None]()

        def send(item: Piece | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        def read() -> None:
            try:
                for piece in self:
                    send(piece)
            except BaseException as error:
                send(error)
            else:
                send(None)

        threading.Thread(target=read, name="namm-llm stream", daemon=True).start()
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.close()

    @property
    def result(self) -> Generation:
        """The whole answer, once all pieces have been read; UsageError before."""
        if self._result is None:
            raise UsageError(
                "the answer is not whole: read the stream to its end before asking for its result."
            )
        return self._result

    def finished(self) -> Generation:
        """The whole answer: reads all pieces first. An error on the way closes the stream."""
        with self:
            for _ in self:
                pass
        return self.result

    def close(self) -> None:
        """Stop the model; nothing more comes."""
        self._closed = True
        self._ticket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
