"""A blocking iterator as an async generator: it runs in a thread of its own, so the event loop is
never kept waiting.

The default executor is left alone: a few answers that wait for their turn would fill it for
everybody else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


async def in_thread(produce: Callable[[threading.Event], Iterator[T]]) -> AsyncGenerator[T, None]:
    """What `produce(cancel)` yields; what it raises is raised here. `cancel` is set when this
    generator is closed or cancelled.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[T | _End] = asyncio.Queue()
    cancel = threading.Event()

    def send(event: T | _End) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody reads any more
            loop.call_soon_threadsafe(events.put_nowait, event)

    def run() -> None:
        try:
            for event in produce(cancel):
                send(event)
        except BaseException as error:  # whatever it is, the reader waits for it
            send(_End(error))
        else:
            send(_End())

    threading.Thread(target=run, name="namm-llm async reader", daemon=True).start()
    try:
        while not isinstance(event := await events.get(), _End):
            yield event
        if event.error is not None:
            raise event.error
    finally:
        cancel.set()


async def call_in_thread(function: Callable[[threading.Event], T]) -> T:
    """What `function(cancel)` returns; `cancel` is set when the task is cancelled."""
    (found,) = [each async for each in in_thread(lambda cancel: iter([function(cancel)]))]
    return found
