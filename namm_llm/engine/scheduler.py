"""Requests that come from many callers at any time, answered together.

They enter the engine as soon as it has room, and leave it with their own last token. Each has its
own ticket, its own cancel flag, and the answer that it would get alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Protocol

from namm_llm.engine.answer import Request
from namm_llm.engine.cancel import AnyOf, CancelFlag
from namm_llm.engine.results import Event, Generation, OnProgress, Progress, RowError, RowResult
from namm_llm.engine.worker import End, Ticket, Worker

Serve = Callable[
    [Callable[[int], list[tuple[int, Request]]], CancelFlag], Iterator[Event | RowError | None]
]


class EventSink(Protocol):
    """What takes the events of one answer, in the worker's thread."""

    def put(self, event: Any) -> None:
        """Take one; the last one is an `End`."""


@dataclass(frozen=True)
class _Numbered:
    """A sink of several answers: their events with the number of each."""

    sink: EventSink
    number: int

    def put(self, event: Any) -> None:
        """As of `EventSink`."""
        self.sink.put((self.number, event))


@dataclass(frozen=True, eq=False)
class _Caller:
    """One request that waits or is served, and where its events go."""

    request: Request
    events: EventSink


class RequestQueue:
    """The requests of any number of threads, answered together by one engine in its worker.

    serve: `Engine.serve`.
    """

    def __init__(self, serve: Serve, worker: Worker) -> None:
        self._serve = serve
        self._worker = worker
        self._changing = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._waiting: list[_Caller] = []
        self._is_posted = False
        self._serving: Iterator[Event | RowError | None] | None = None
        self._served: dict[int, _Caller] = {}
        self._numbers = 0

    def submit(self, request: Request, cancel: CancelFlag | None) -> Ticket[Event]:
        """Progress, pieces and the result of one request."""
        events: SimpleQueue[Any] = SimpleQueue()
        return Ticket(events, self.follow([request], [events], cancel))

    def answers(
        self, requests: list[Request], cancel: CancelFlag | None, on_progress: OnProgress | None
    ) -> list[Generation]:
        """The whole answers to requests that come at once. on_progress: tokens of all prompts."""
        if len(requests) > 1:  # else they would push out what others go on from
            requests = [replace(request, keeps=False) for request in requests]
        total = sum(len(request.ids) for request in requests)
        results, done = dict[int, Generation](), dict[int, int]()
        arrived: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        sinks = [_Numbered(arrived, number) for number in range(len(requests))]
        stopped = self.follow(requests, sinks, cancel)
        try:
            while len(results) < len(requests):
                number, event = arrived.get()
                if isinstance(event, RowResult):
                    results[number] = event.generation
                elif isinstance(event, End) and event.error is not None:
                    raise event.error
                elif isinstance(event, Progress) and on_progress is not None:
                    done[number] = event.done
                    on_progress(sum(done.values()), total)
        finally:
            stopped.set()
        return [results[number] for number in sorted(results)]

    def follow(
        self,
        requests: Sequence[Request],
        sinks: Sequence[EventSink],
        cancel: CancelFlag | None = None,
    ) -> threading.Event:
        """As `submit`, for requests that come at once, into queues of the caller's; the flag that
        comes back stops the answers.
        """
        if self._process != os.getpid():
            # a forked process has none of its parent's callers, and the lock may have been held
            self._changing = threading.Lock()
            self._forget()
        stopped = threading.Event()
        flag = AnyOf(stopped, cancel)
        callers = [
            _Caller(replace(request, cancel=flag), events)
            for request, events in zip(requests, sinks, strict=True)
        ]
        with self._changing:
            self._waiting += callers
            is_posted, self._is_posted = self._is_posted, True
        if not is_posted:
            self._worker.post(self._turns)
        return stopped

    def _turns(self, closing: CancelFlag) -> None:
        """In the worker's thread: answer until nobody waits, or another job wants its turn."""
        if self._serving is None:
            self._serving = self._serve(self._take, closing)
        try:
            for event in self._serving:
                if event is not None:
                    self._send(event)
                elif self._worker.has_jobs:
                    self._worker.post(self._turns)
                    return
        except BaseException as error:  # every one of them waits for it
            for caller in self._served.values():
                caller.events.put(End(error))
            self._served.clear()
        self._serving = None
        with self._changing:
            self._is_posted = bool(self._waiting)
        if self._is_posted:
            self._worker.post(self._turns)

    def _send(self, event: Event | RowError) -> None:
        match event:
            case RowError(row, error):
                self._served.pop(row).events.put(End(error))
            case RowResult(row):
                caller = self._served.pop(row)
                caller.events.put(event)
                caller.events.put(End())
            case _:
                self._served[event.row].events.put(event)

    def _take(self, most: int) -> list[tuple[int, Request]]:
        """Those that wait longest, with the numbers by which their events are known."""
        with self._changing:
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
        numbers = range(self._numbers, self._numbers + len(taken))
        self._numbers += len(taken)
        self._served.update(zip(numbers, taken, strict=True))
        return [(number, caller.request) for number, caller in zip(numbers, taken, strict=True)]
