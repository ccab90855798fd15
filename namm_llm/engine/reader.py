"""`DocumentReader`: text that comes in blocks, read into a cache in chunks that end where those of
the whole text would.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from namm_llm.cache import ManagedCache
from namm_llm.engine.engine import Engine, Progress
from namm_llm.engine.requests import Requests
from namm_llm.engine.stream import OnProgress
from namm_llm.engine.worker import Worker
from namm_llm.models.prompt import PromptFormat


class DocumentReader:
    """chunk: tokens that go through the model at once."""

    def __init__(
        self, engine: Engine, worker: Worker, prompts: PromptFormat, requests: Requests, chunk: int
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._format = prompts
        self._requests = requests
        self._chunk = chunk

    def read(
        self, memory: ManagedCache | None, blocks: Iterable[str], on_progress: OnProgress | None
    ) -> ManagedCache:
        """A cache that also holds the text of `blocks`, behind what `memory` holds, which stays as
        it is.
        """
        before = 0 if memory is None else sum(memory.seen_tokens())
        cache = self._worker.call(lambda: self._engine.begin(memory, self._format.head_tokens))
        # chunks end where they would, were all ids there at once (see `prefill`)
        waits = cache.eviction.waits_for_model
        step = cache.eviction.interval if waits else self._chunk
        begun = before % step if waits else 0
        encode = self._format.document if memory is None else self._format.more
        ids: list[int] = []
        done = 0
        for block in blocks:
            ready = (begun + done + len(ids)) // step * step - begun - done
            if ready > 0:
                self._read_ids(
                    cache, ids[:ready], done, done + len(ids), on_progress, to_the_end=False
                )
                del ids[:ready]
                done += ready
            ids += encode(block)
            encode = self._format.more
            self._requests.check_fits(
                done + len(ids), before, "document" if memory is None else "text"
            )
        self._read_ids(cache, ids, done, done + len(ids), on_progress, to_the_end=True)
        return cache

    def _read_ids(
        self,
        cache: ManagedCache,
        ids: list[int],
        done: int,
        total: int,
        on_progress: OnProgress | None,
        *,
        to_the_end: bool,
    ) -> None:
        event: object = None
        with closing(
            self._worker.submit(
                lambda cancel: self._engine.read(cache, ids, cancel, to_the_end=to_the_end)
            )
        ) as events:
            for event in events:
                if isinstance(event, Progress) and on_progress is not None:
                    on_progress(done + event.done, total)
        assert event is cache, "only its reader can cancel this"
