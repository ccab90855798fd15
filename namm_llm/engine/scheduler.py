"""Requests that come from many callers at once, answered together.

The request that waits longest takes along those that can share its batch. One that comes while
prompts are read joins them; one that comes while answers are written waits for the next batch. Each
has its own ticket, its own cancel flag, and the answer that it would get alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Protocol

from namm_llm.engine.answer import Request
from namm_llm.engine.cancel import AnyOf, CancelFlag
from namm_llm.engine.results import Event, RowResult
from namm_llm.engine.worker import End, Ticket, Worker

More = Callable[[Request], list[Request]]
AnswerAll = Callable[[list[Request], CancelFlag, More], Iterator[Event]]


class EventSink(Protocol):
    """What takes the events of one answer, in the worker's thread."""

    def put(self, event: Any) -> None:
        """Take one; the last one is an `End`."""


@dataclass(eq=False)
class _Caller:
    """One request that waits or is served, and the queue that its reader reads."""

    request: Request
    stopped: threading.Event
    events: EventSink = field(default_factory=SimpleQueue)
    is_served: bool = False

    def put(self, event: Event) -> None:
        self.events.put(event)
        if isinstance(event, RowResult):
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        if not self.is_served:
            self.is_served = True
            self.events.put(End(error))


class RequestQueue:
    """The requests of any number of threads, answered together by one engine in its worker.

    answer: `Engine.answer`.
    """

    def __init__(self, answer: AnswerAll, worker: Worker) -> None:
        self._answer = answer
        self._worker = worker
        self._waiting: list[_Caller] = []
        self._changing = threading.Lock()
        self._process = os.getpid()

    def submit(self, request: Request, cancel: CancelFlag | None) -> Ticket[Event]:
        """Progress, pieces and the result of one request."""
        events: SimpleQueue[Any] = SimpleQueue()
        return Ticket(events, self.follow(request, events, cancel))

    def follow(
        self, request: Request, events: EventSink, cancel: CancelFlag | None = None
    ) -> threading.Event:
        """As `submit`, into a queue of the caller's; the flag that comes back stops the answer."""
        if self._process != os.getpid():
            # a forked process has none of its parent's callers, and the lock may have been held
            self._process, self._waiting, self._changing = os.getpid(), [], threading.Lock()
        stopped = threading.Event()
        caller = _Caller(replace(request, cancel=AnyOf(stopped, cancel)), stopped, events)
        with self._changing:
            self._waiting.append(caller)
        self._worker.post(self._serve)
        return stopped

    def _serve(self, closing: CancelFlag) -> None:
        """In the worker's thread: answer what waits longest, and what fits beside it."""
        served = self._take(1)
        if not served:
            return  # an earlier turn took its caller along

        def more(first: Request) -> list[Request]:
            came = self._take(1, first)
            served.extend(came)
            return [caller.request for caller in came]

        try:
            for event in self._answer([served[0].request], closing, more):
                served[event.row].put(event)
        except BaseException as error:  # every one of them waits for it
            for caller in served:
                caller.end(error)

    def _take(self, count: int, beside: Request | None = None) -> list[_Caller]:
        """Those that wait longest; with `beside`, of those that can run in a batch with it."""
        with self._changing:
            fits = [
                caller
                for caller in self._waiting
                if beside is None or caller.request.question_span == beside.question_span
            ]
            taken = fits[:count]
            self._waiting = [caller for caller in self._waiting if caller not in taken]
        return taken
