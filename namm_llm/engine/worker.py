"""One thread that owns a model and everything computed with it; callers hand in jobs and read
events from a queue.

A job is a generator that runs in the thread. Its reader may be any thread, or several in turn; a
reader that closes its ticket or drops it cancels the job. What a job raises is raised in its
reader. Knows nothing about models.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Queue, SimpleQueue
from typing import Any, Generic, TypeVar

from namm_llm.engine.cancel import AnyOf, CancelFlag

T = TypeVar("T")
_EXIT_SECONDS = 10.0  # a thread that computes while the interpreter ends would crash it


@dataclass(frozen=True)
class End:
    """The last thing in a ticket's queue."""

    error: BaseException | None = None
    """What the job raised."""


@dataclass(frozen=True)
class _Task:
    job: Callable[[CancelFlag], Iterator[Any]]
    events: SimpleQueue[Any]
    cancel: CancelFlag


class Ticket(Generic[T]):
    """The reader's end of a job: an iterator over what it yields."""

    def __init__(self, events: SimpleQueue[Any], stopped: threading.Event) -> None:
        self._events = events
        self._stopped = stopped

    def __iter__(self) -> Ticket[T]:
        return self

    def __next__(self) -> T:
        event = self._events.get()
        if not isinstance(event, End):
            return event  # type: ignore[no-any-return]
        self._events.put(End())  # for whoever asks once more
        if event.error is not None:
            raise event.error
        raise StopIteration

    def close(self) -> None:
        """Stop the job soon; nothing that it still yields is of interest."""
        self._stopped.set()

    def __del__(self) -> None:
        self._stopped.set()


class Worker:
    """The thread and its queue. It ends when nobody holds the worker any more, or with the
    interpreter.
    """

    def __init__(self) -> None:
        self._start()
        _ALL.add(self)

    def _start(self) -> None:
        self._tasks: Queue[_Task | None] = Queue()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=_work, args=(self._tasks, self._closing), name="namm-llm worker", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, _dismiss, self._tasks, self._closing).atexit = False

    def submit(
        self, job: Callable[[CancelFlag], Iterator[T]], cancel: CancelFlag | None = None
    ) -> Ticket[T]:
        """Run `job(flag)` when its turn comes; the flag is set when `cancel` is, or when the ticket
        is closed or dropped.
        """
        assert threading.current_thread() is not self._thread, (
            "a job that waits for another one would wait for ever"
        )
        stopped = threading.Event()
        events: SimpleQueue[Any] = SimpleQueue()
        self._tasks.put(_Task(job, events, AnyOf(stopped, cancel, self._closing)))
        return Ticket(events, stopped)

    def post(self, function: Callable[[CancelFlag], None]) -> None:
        """Run `function(flag)` when its turn comes, without waiting for it; the flag is set when
        the worker closes.
        """

        def job(flag: CancelFlag) -> Iterator[None]:
            function(flag)
            yield

        self._tasks.put(_Task(job, SimpleQueue(), self._closing))

    @property
    def has_jobs(self) -> bool:
        """Whether another job waits for its turn."""
        return not self._tasks.empty()

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns in the thread."""
        (value,) = self.submit(lambda _: iter([function()]))
        return value

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs and takes jobs."""
        return self._thread.is_alive() and not self._closing.is_set()

    def close(self) -> None:
        """Cancel what runs or waits, and wait for the thread."""
        _dismiss(self._tasks, self._closing)
        self._thread.join(_EXIT_SECONDS)


_ALL: weakref.WeakSet[Worker] = weakref.WeakSet()
_OF: weakref.WeakKeyDictionary[object, Worker] = weakref.WeakKeyDictionary()
_FINDING = threading.Lock()


def worker_of(owned: object) -> Worker:
    """The one worker that owns this object; it lives as long as the object does."""
    with _FINDING:
        if owned not in _OF:
            _OF[owned] = Worker()
        return _OF[owned]


def _start_in_child() -> None:
    """After a fork the workers are there, but their threads are not."""
    global _FINDING
    _FINDING = threading.Lock()
    for worker in list(_ALL):
        worker._start()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_in_child)


def _work(tasks: Queue[_Task | None], closing: threading.Event) -> None:
    # a function and not a method, so that the thread does not keep its worker alive
    while not (closing.is_set() and tasks.empty()):
        task = tasks.get()
        if task is not None:
            _run(task)
        del task  # it holds the model while we wait for the next one


def _run(task: _Task) -> None:
    try:
        for event in task.job(task.cancel):
            task.events.put(event)
    except BaseException as error:  # whatever it is, the reader waits for it
        task.events.put(End(error))
    else:
        task.events.put(End())


def _dismiss(tasks: Queue[_Task | None], closing: threading.Event) -> None:
    closing.set()
    tasks.put(None)


@atexit.register
def _close_all() -> None:
    for worker in list(_ALL):
        worker.close()
