"""`Document`: a document that was read once, to be asked as often as one likes, saved, and opened
again without reading.

It holds the compressed cache and never the text. A saved memory is one safetensors file: the
tensors of the cache, and a header that says which model, eviction settings and text they belong to.
It does not compute: a runner does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig
from namm_llm.config.header import config_from_dict, config_tensors, config_to_dict
from namm_llm.documents.blocks import Text, TextBlocks
from namm_llm.documents.saved import VERSION, SavedHeader, SavedModel, checksum, read, write
from namm_llm.errors import CacheError, DocumentError, NammFileError, PolicyError, UsageError

Question = str | Sequence[Mapping[str, Any]]  # a text, or chat messages
T = TypeVar("T")
AnswerT = TypeVar("AnswerT")
StreamT = TypeVar("StreamT", covariant=True)


class Reader(Protocol[AnswerT, StreamT]):
    """What a memory needs of a runner."""

    @property
    def model_id(self) -> str: ...

    def identity(self) -> SavedModel: ...

    def stream_question(
        self, memory: ManagedCache, question: Question, *args: Any, **sampling: Any
    ) -> StreamT: ...

    def answer_questions(
        self, memory: ManagedCache, questions: Sequence[Question], *args: Any, **sampling: Any
    ) -> list[AnswerT]: ...

    def read_on(
        self,
        memory: ManagedCache,
        blocks: Iterable[str],
        on_progress: Callable[[int, int], None] | None,
    ) -> ManagedCache: ...

    def restore(
        self, tensors: dict[str, Tensor], metadata: dict[str, str], eviction: CacheConfig
    ) -> ManagedCache: ...

    def call(self, function: Callable[[], T]) -> T: ...


class Document(Generic[AnswerT, StreamT]):
    """What a runner keeps of a document. It never changes: questions and additions go to forks of
    its cache.

    extra: strings that its file carries for whoever saved it. text_sha256: of the text that was
    read.
    """

    def __init__(
        self,
        runner: Reader[AnswerT, StreamT],
        cache: ManagedCache,
        text_sha256: str,
        *,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self._runner = runner
        self._cache = cache
        self._text_sha256 = text_sha256
        self.extra = dict(extra or {})

    # -- asking ------------------------------------------------------------------------------------
    # -------------------------------

    def ask(self, question: Question, *args: Any, **sampling: Any) -> AnswerT:
        """The whole answer to a question, a text or chat messages. Takes `SamplingParams`, or any
        of them as keywords, and `cancel`.
        """
        return self._runner.answer_questions(self._cache, [question], *args, **sampling)[0]

    def stream(self, question: Question, *args: Any, **sampling: Any) -> StreamT:
        """The answer in pieces; arguments as of `ask`."""
        return self._runner.stream_question(self._cache, question, *args, **sampling)

    def ask_many(self, questions: Sequence[Question], *args: Any, **sampling: Any) -> list[AnswerT]:
        """The answers to several questions, decoded together; each is what it would be alone."""
        return self._runner.answer_questions(self._cache, questions, *args, **sampling)

    def extend(
        self, text: Text, *, on_progress: Callable[[int, int], None] | None = None
    ) -> Document[AnswerT, StreamT]:
        """A memory of this document and `text` behind it, for which only `text` is read; this
        memory stays as it is.

        text, on_progress: as of `Runner.read`. Nothing is put between the two. The tokens are those
        of one text, if `text` begins with a word behind a newline, or with a space behind a word. A
        full cache then holds what one long reading would. One that evicts was judged at the end of
        the first part, once more than in one long reading (unless that end was where an update is
        due, or before the first one), so other tokens may stay; budget and protected spans hold as
        ever. What the two memories share takes room once, until an update of the longer one. Its
        `text_sha256` is the SHA-256 of both parts' hashes.
        """
        blocks = TextBlocks(text, "the text")
        cache = self._runner.read_on(self._cache, blocks, on_progress)
        both = hashlib.sha256((self._text_sha256 + blocks.sha256).encode()).hexdigest()
        return Document(self._runner, cache, both, extra=self.extra)

    def fork(self) -> Document[AnswerT, StreamT]:
        """A second memory that shares what is retained, for code that writes to `cache`."""
        return Document(
            self._runner, self._runner.call(self._cache.fork), self._text_sha256, extra=self.extra
        )

    @property
    def runner(self) -> Reader[AnswerT, StreamT]:
        """What answers."""
        return self._runner

    @property
    def cache(self) -> ManagedCache:
        """The cache itself; write to that of a `fork` only."""
        return self._cache

    def info(self) -> dict[str, Any]:
        """The cache's numbers (see `CacheStats`), the model and the hash of the text; ready for
        JSON.
        """
        return {
            "model": self._runner.model_id,
            **asdict(self._cache.stats()),
            "text_sha256": self._text_sha256,
        }

    # -- saving ------------------------------------------------------------------------------------
    # -------------------------------

    def save(self, path: str | os.PathLike[str], *, extra: Mapping[str, str] | None = None) -> None:
        """Write the memory to a file, all or nothing, with the settings it was read with and the
        policy's NAMM. DocumentError if the disk refuses.

        extra: strings that go into the header for whoever opens it (`read_header`), in the place of
        those that the memory has.
        """
        extra = dict(self.extra if extra is None else extra)
        if not all(isinstance(text, str) for pair in extra.items() for text in pair):
            raise UsageError(f"extra is a dictionary of strings, not {extra!r}.")
        cached, numbers = self._runner.call(self._cache.state)
        eviction, stats = self._cache.eviction, self._cache.stats()
        # a NAMM's numbers are cloned because safetensors refuses tensors that share memory
        own = {name: tensor.clone() for name, tensor in config_tensors(eviction).items()}
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in (cached | own).items()
        }
        header = SavedHeader(
            version=VERSION,
            model=self._runner.identity(),
            eviction=config_to_dict(eviction),
            policy=stats.policy,
            seen_tokens=stats.seen_tokens,
            stored_tokens=stats.stored_tokens,
            text_sha256=self._text_sha256,
            extra=extra,
            cache=numbers,
            tensors_sha256=checksum(tensors),
        )
        write(Path(path), tensors, header)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], runner: Reader[AnswerT, StreamT]
    ) -> Document[AnswerT, StreamT]:
        """Open a saved memory with the settings that it was read with, whatever those of the runner
        are. DocumentError if the file is no whole memory, or one of another model, quantization or
        dtype.
        """
        path = Path(path)
        header, tensors = read(path)
        header.check_belongs(path, runner.identity())
        try:
            numbers = {
                **header.cache,
                "eviction": json.dumps(header.eviction),
            }  # in old files it is text of Python's
            cache = runner.restore(tensors, numbers, config_from_dict(header.eviction, tensors))
        except (NammFileError, PolicyError) as error:
            raise DocumentError(f"{path} cannot be asked: {str(error).rstrip('.')}.") from error
        except (CacheError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise DocumentError(
                f"{path} is of no use to this program ({error}). Read the document again."
            ) from error
        return cls(runner, cache, header.text_sha256, extra=header.extra)
