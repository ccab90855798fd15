"""`DocumentReader`: a document, block by block, into a cache, so that answers of others go on in
between.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from math import inf
from typing import Protocol

from namm_llm.cache import ManagedCache
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import pieces_of, tokens_seen
from namm_llm.engine.results import OnProgress, Progress
from namm_llm.engine.worker import Worker
from namm_llm.models.prompt import PromptFormat
from namm_llm.models.vision.picture import Picture
from namm_llm.models.vision.vision import Encoded


class ReadsText(Protocol):
    """The part of `Engine` that reads documents."""

    def begin(self, memory: ManagedCache | None, head: int) -> ManagedCache: ...
    def read(
        self, cache: ManagedCache, ids: list[int], cancel: CancelFlag, *, text: list[int] | None
    ) -> Iterator[Progress | ManagedCache]: ...


class Blocks(Protocol):
    """A document in blocks."""

    def __iter__(self) -> Iterator[str]: ...
    def pictures_of(self, block: str) -> Sequence[Picture]:
        """Those whose marks the block holds."""


CheckFits = Callable[[int, int, str, ManagedCache], None]
OnPause = Callable[[ManagedCache, Sequence[int]], object]
"""Gets the cache of a text that goes on, which is its until it returns, and the ids that are not
read yet."""
KEPT_IDS = 1 << 17  # of a longer text none are kept, so that memory stays flat
Encode = Callable[[Sequence[Picture]], tuple[Encoded, ...]]


class DocumentReader:
    """Reads documents with one engine in its worker.

    chunk: tokens of a call of the model. encode: pictures for the model. check_fits: as of
    `Session`.
    """

    def __init__(
        self,
        engine: ReadsText,
        worker: Worker,
        format: PromptFormat,
        chunk: int,
        encode: Encode,
        check_fits: CheckFits,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._format = format
        self._chunk = chunk
        self._encode = encode
        self._check_fits = check_fits

    def read(
        self,
        memory: ManagedCache | None,
        blocks: Blocks | Iterable[str],
        on_progress: OnProgress | None = None,
        *,
        unread: Sequence[int] = (),
        on_pause: OnPause | None = None,
    ) -> tuple[ManagedCache, array[int]]:
        """See `Session.read`."""
        before = 0 if memory is None else tokens_seen(memory)
        head = self._format.head_tokens
        cache = self._worker.call(lambda: self._engine.begin(memory, head))
        step, offset = pieces_of(cache, self._chunk)
        encode = self._format.document if memory is None else self._format.more
        ids, done, read = list(unread), 0, array("q", unread)
        kept = inf if cache.config.policy.repeats else KEPT_IDS
        waiting = tuple[Encoded, ...]()  # pictures are held until they are read
        pictures_of = getattr(blocks, "pictures_of", lambda block: ())
        for block in blocks:
            waiting += self._encode(pictures_of(block))
            new = encode(block)
            ids += new
            read.extend(new)
            if len(read) > kept:
                read, kept = array("q"), 0
            encode = self._format.more
            what = "document" if memory is None else "text"
            self._check_fits(done + len(ids), before, what, cache)
            ready = (offset + done + len(ids)) // step * step - offset - done
            if ready > 0:
                self._read_ids(cache, ids[:ready], done, done + len(ids), on_progress)
                del ids[:ready]
                done += ready
                waiting = tuple(each for each in waiting if each.is_among(ids))
            if on_pause is not None:
                on_pause(cache, ids)
        text = list(read) if cache.config.policy.repeats else []
        self._read_ids(cache, ids, done, done + len(ids), on_progress, text)
        return cache, read

    def _read_ids(
        self,
        cache: ManagedCache,
        ids: list[int],
        done: int,
        total: int,
        on_progress: OnProgress | None,
        text: list[int] | None = None,
    ) -> None:
        """Read `ids` piece by piece, so that answers of others go on in between; pieces end where
        calls of the model end in one reading. text: as of `Engine.read`, behind the last piece.
        """
        size, offset = pieces_of(cache, self._chunk)
        for start, stop in pairwise([0, *range(size - offset, len(ids), size), len(ids)]):
            last = text if stop == len(ids) else None
            for progress in self._read_piece(cache, ids[start:stop], last):
                if on_progress is not None:
                    on_progress(done + start + progress.done, total)

    def _read_piece(
        self, cache: ManagedCache, ids: list[int], text: list[int] | None
    ) -> Iterator[Progress]:
        """Progress of one job of the worker."""
        event: object = None
        job = self._worker.submit(lambda cancel: self._engine.read(cache, ids, cancel, text=text))
        with closing(job) as events:
            for event in events:
                if isinstance(event, Progress):
                    yield event
        assert event is cache, "only its reader can cancel this"
