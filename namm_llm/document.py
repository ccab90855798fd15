"""`Document`: a document that was read once, to be asked as often as one likes, saved, and opened
again without reading.

It holds the compressed cache, and the token ids of what it read, which are never saved. A saved
memory is one safetensors file: the
tensors of the cache, and a header that says which model, cache settings and text they belong to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from namm_llm.cache import ManagedCache
from namm_llm.cache.combine import joined_config
from namm_llm.config import CacheConfig, SamplingParams
from namm_llm.config.header import config_from_dict, config_tensors, config_to_dict
from namm_llm.documents.blocks import Text, TextBlocks
from namm_llm.documents.saved import (
    VERSION,
    SavedHeader,
    SavedModel,
    checksum,
    memory_fingerprint,
    read,
    write,
)
from namm_llm.engine.answer import Request
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import tokens_seen
from namm_llm.engine.results import Generation, OnProgress
from namm_llm.engine.session import Session
from namm_llm.engine.stream import Stream
from namm_llm.errors import CacheError, DocumentError, NammFileError, PolicyError, UsageError
from namm_llm.models.prompt import Question


class Document:
    """What is kept of a document that was read once.

    It never changes: questions and additions go to forks of its cache. `Runner.read` and
    `Runner.open` make one.
    """

    def __init__(
        self,
        session: Session,
        cache: ManagedCache,
        text_sha256: str,
        *,
        extra: Mapping[str, str] | None = None,
        ids: Sequence[int] = (),
    ) -> None:
        """ids: tokens of the text, if they are known: answers that quote it come faster."""
        self.session = session
        """The model with the cache settings of whoever read it; `Runner(session)` is its runner."""
        self.extra = dict(extra or {})
        """Strings that its file carries for whoever saved it."""
        self._cache = cache
        self._text_sha256 = text_sha256
        self._ids = ids

    # -- asking ------------------------------------------------------------------------------------

    def ask(
        self, question: Question, params: SamplingParams | None = None, **options: Any
    ) -> Generation:
        """The whole answer to a question, a text or chat messages; options as of `stream`."""
        return self.ask_many([question], params, **options)[0]

    def stream(
        self,
        question: Question,
        params: SamplingParams | None = None,
        *,
        cancel: CancelFlag | None = None,
        **options: Any,
    ) -> Stream:
        """The answer in pieces.

        params, options: how it is written, tools and tool_choice, as of `Runner.stream`. Raises
        ContextError if document and question leave no position for an answer, UsageError for an
        empty question or wrong options.
        """
        return self.session.stream(self.request(question, params, **options), cancel)

    def ask_many(
        self,
        questions: Sequence[Question],
        params: SamplingParams | None = None,
        *,
        cancel: CancelFlag | None = None,
        **options: Any,
    ) -> list[Generation]:
        """The answers to several questions, decoded together; each is what it would be alone."""
        requests = [self.request(question, params, **options) for question in questions]
        return self.session.answer(requests, cancel)

    def request(
        self, question: Question, params: SamplingParams | None = None, **options: Any
    ) -> Request:
        """A question as the session takes it; options as of `stream`."""
        return self.session.question_request(
            self._cache, question, params, memory_ids=self._ids, **options
        )

    def extend(self, text: Text, *, on_progress: OnProgress | None = None) -> Document:
        """A memory of this document and `text` behind it, for which only `text` is read; this
        memory stays as it is.

        text, on_progress: as of `Runner.read`. Nothing is put between the two. The tokens are those
        of one text, if `text` begins with a word behind a newline, or with a space behind a word. A
        full cache then holds what one long reading would. One that evicts had an eviction step at
        the end of the first part, once more than in one long reading (unless that end was where one
        is due), so other tokens may stay; budget and protected spans hold as ever. What the two
        memories share takes memory once, until an eviction step of the longer one. Its
        `text_sha256` is the SHA-256 of both parts' hashes. Raises ContextError, DocumentError.
        """
        blocks = TextBlocks(text, "the text")
        cache, ids = self.session.read(self._cache, blocks, on_progress)
        both = hashlib.sha256((self._text_sha256 + blocks.sha256).encode()).hexdigest()
        return Document(self.session, cache, both, extra=self.extra, ids=[*self._ids, *ids])

    def fork(self) -> Document:
        """A second memory that shares what is retained, for code that writes to `cache`."""
        cache = self.session.call(self._cache.fork)
        return Document(self.session, cache, self._text_sha256, extra=self.extra, ids=self._ids)

    @property
    def cache(self) -> ManagedCache:
        """The cache itself; write to that of a `fork` only."""
        return self._cache

    @property
    def fingerprint(self) -> str:
        """The same for the same text, read by the same model with the same cache settings: what
        answers can be kept by. That of its file is the same.
        """
        return fingerprint_of(self.session, self._cache.config, self._text_sha256)

    def __repr__(self) -> str:
        seen, kept = self._cache.stats().seen_tokens, self._cache.stats().stored_tokens
        return f"<Document {self.fingerprint[:12]}: {kept} of {seen} tokens>"

    def info(self) -> dict[str, Any]:
        """The cache's numbers (see `CacheStats`), the model and the hash of the text; ready for
        JSON.
        """
        return {
            "model": self.session.loaded.model_id,
            **asdict(self._cache.stats()),
            "text_sha256": self._text_sha256,
        }

    # -- saving ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, extra: Mapping[str, str] | None = None) -> None:
        """Write the memory to a file, all or nothing, with the settings it was read with and the
        policy's NAMM.

        extra: strings that go into the header for whoever opens it (`read_header`), in the place of
        those that the memory has. Raises DocumentError if the disk refuses.
        """
        extra = dict(self.extra if extra is None else extra)
        if not all(isinstance(text, str) for pair in extra.items() for text in pair):
            raise UsageError(f"extra is a dictionary of strings, not {extra!r}.")
        cached, numbers = self.session.call(self._cache.state)
        config, stats = self._cache.config, self._cache.stats()
        # a NAMM's numbers are cloned because safetensors refuses tensors that share memory
        own = {name: tensor.clone() for name, tensor in config_tensors(config).items()}
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in (cached | own).items()
        }
        header = SavedHeader(
            version=VERSION,
            model=SavedModel.of(self.session.loaded),
            config=config_to_dict(config),
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
        cls, path: str | os.PathLike[str], session: Session, text: str | None = None
    ) -> Document:
        """Open a saved memory with the settings that it was read with, whatever those of the
        session are.

        text: what it was read from, if that is at hand; see `Runner.open`. Raises DocumentError if
        the file is no whole memory, or one of another model, quantization or dtype.
        """
        path = Path(path)
        header, tensors = read(path)
        header.check_belongs(path, SavedModel.of(session.loaded))
        try:
            numbers = {**header.cache, "config": json.dumps(header.config)}
            config = config_from_dict(header.config, tensors)
            cache = session.restore(tensors, numbers, config)
        except (NammFileError, PolicyError) as error:
            raise DocumentError(f"{path} cannot be asked: {str(error).rstrip('.')}.") from error
        except (CacheError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise DocumentError(
                f"{path} is of no use to this program ({error}). Read the document again."
            ) from error
        ids = () if text is None else session.format.document(text)
        return cls(session, cache, header.text_sha256, extra=header.extra, ids=ids)


def combined(documents: Sequence[Document], separators: Sequence[str] = "") -> Document:
    """Documents that were read separately, one behind the other as one: their keys are turned to
    the positions that they would have in one text, and nothing is read again.

    Each brings its budget; what stands before the text is that of the first. separators: a text
    between them, or one for each place; it is read, so the fewer tokens the better.

    Raises UsageError for no document, CacheError for other models, other cache settings or sliding
    windows, ContextError for more tokens than positions, ModelError for a model without RoPE.
    """
    if not documents:
        raise UsageError("there is no document to combine; give at least one.")
    first, others = documents[0], documents[1:]
    between = [separators] * len(others) if isinstance(separators, str) else list(separators)
    if len(between) != len(others):
        raise UsageError(
            f"{len(documents)} documents have {len(others)} places between them, and there are "
            f"{len(between)} separators; give one text, or one for each place."
        )
    session, cache, ids = first.session, first.cache, list(first._ids)
    if any(each.session.loaded is not session.loaded for each in documents):
        raise CacheError("documents that other models have read cannot be joined.")
    known, own, head = True, first.cache.config.budget, session.format.head_tokens
    for number, (other, text) in enumerate(zip(others, between, strict=True), 2):
        if text:
            cache, more = session.read(cache, [str(text)])
            ids += more
        start, count = tokens_seen(cache), tokens_seen(other.cache) - head
        session.check_fits(count, start, "document", cache)
        budget = None if own is None else own.times(number)
        config = joined_config(
            cache.config, other.cache.config, budget=budget, head=head, start=start
        )
        cache = session.join(cache, other.cache, head, config)
        known = known and bool(other._ids)
        ids += other._ids[head:]
    whole = json.dumps([each._text_sha256 for each in documents] + [str(each) for each in between])
    sha256 = hashlib.sha256(whole.encode()).hexdigest()
    return Document(session, cache, sha256, ids=ids if known else ())


def fingerprint_of(session: Session, config: CacheConfig, text_sha256: str) -> str:
    """`Document.fingerprint` of a text with this hash, read with these cache settings."""
    return memory_fingerprint(SavedModel.of(session.loaded), config_to_dict(config), text_sha256)
