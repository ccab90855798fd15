"""`DocumentMemory`: a document that was read once, to be asked as often as one likes, saved, and opened again without reading.

It holds the compressed cache and never the text. A saved memory is one safetensors file: the tensors of the cache, and a header that says
which model, eviction settings and text they belong to. It does not compute: a runner does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.errors import CacheError, DocumentError
from namm_llm.namm import Namm
from namm_llm.policies import Eviction

VERSION = 1
_HEADER = "namm_document"  # a single entry of the metadata, because safetensors does not keep the order of several
Question = str | Sequence[Mapping[str, Any]]  # a text, or chat messages
T = TypeVar("T")
AnswerT = TypeVar("AnswerT")
StreamT = TypeVar("StreamT", covariant=True)


class Reader(Protocol[AnswerT, StreamT]):
    """What a memory needs of a runner."""

    @property
    def model_id(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def eviction(self) -> Eviction: ...

    def stream_question(self, memory: ManagedCache, question: Question, *args: Any, **sampling: Any) -> StreamT: ...

    def answer_questions(self, memory: ManagedCache, questions: Sequence[Question], *args: Any, **sampling: Any) -> list[AnswerT]: ...

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str], protected: Sequence[Sequence[int]]) -> ManagedCache: ...

    def call(self, function: Callable[[], T]) -> T: ...


@dataclass(frozen=True)
class _Header:
    """What a saved memory belongs to; checked before its tensors are used."""

    version: int
    model: str
    fingerprint: str
    settings: str
    policy: str
    seen_tokens: int
    text_sha256: str
    protected: list[list[int]]
    cache: dict[str, str]


class DocumentMemory(Generic[AnswerT, StreamT]):
    """What a runner keeps of a document. Asking never changes it: every question goes to a fork of its cache."""

    def __init__(self, runner: Reader[AnswerT, StreamT], cache: ManagedCache, text_sha256: str) -> None:
        self._runner = runner
        self._cache = cache
        self._text_sha256 = text_sha256

    @classmethod
    def of_text(cls, runner: Reader[AnswerT, StreamT], cache: ManagedCache, text: str) -> DocumentMemory[AnswerT, StreamT]:
        """The memory of a text that went through `cache`."""
        return cls(runner, cache, hashlib.sha256(text.encode()).hexdigest())

    # -- asking -------------------------------------------------------------------------------------------------------------------

    def ask(self, question: Question, *args: Any, **sampling: Any) -> AnswerT:
        """The whole answer to a question, a text or chat messages. Takes `SamplingParams`, or any of them as keywords, and `cancel`."""
        return self._runner.answer_questions(self._cache, [question], *args, **sampling)[0]

    def stream(self, question: Question, *args: Any, **sampling: Any) -> StreamT:
        """The answer in pieces; arguments as of `ask`."""
        return self._runner.stream_question(self._cache, question, *args, **sampling)

    def ask_many(self, questions: Sequence[Question], *args: Any, **sampling: Any) -> list[AnswerT]:
        """The answers to several questions, decoded together; each is what it would be alone."""
        return self._runner.answer_questions(self._cache, questions, *args, **sampling)

    def fork(self) -> DocumentMemory[AnswerT, StreamT]:
        """A second memory that shares what is settled, for code that writes to `cache`."""
        return DocumentMemory(self._runner, self._runner.call(self._cache.fork), self._text_sha256)

    @property
    def runner(self) -> Reader[AnswerT, StreamT]:
        """What answers."""
        return self._runner

    @property
    def cache(self) -> ManagedCache:
        """The cache itself; write to that of a `fork` only."""
        return self._cache

    def info(self) -> dict[str, Any]:
        """The cache's numbers (see `CacheStats`), the model and the hash of the text; ready for JSON."""
        return {"model": self._runner.model_id, **asdict(self._cache.stats()), "text_sha256": self._text_sha256}

    # -- saving -------------------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to a file, all or nothing."""
        tensors, cache = self._runner.call(self._cache.state)
        stats = self._cache.stats()
        header = _Header(
            version=VERSION,
            model=self._runner.model_id,
            fingerprint=self._runner.fingerprint,
            settings=_settings(self._runner.eviction),
            policy=stats.policy,
            seen_tokens=stats.seen_tokens,
            text_sha256=self._text_sha256,
            protected=[list(span) for span in self._cache.eviction.protected],
            cache=cache,
        )
        saved = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        _write(Path(path), saved, json.dumps(asdict(header), sort_keys=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str], runner: Reader[AnswerT, StreamT]) -> DocumentMemory[AnswerT, StreamT]:
        """Open a saved memory. DocumentError if the file is no whole memory, or one of another model or other settings."""
        path = Path(path)
        header, tensors = _read(path)
        _check_belongs(path, header, runner)
        try:
            cache = runner.restore(tensors, header.cache, header.protected)
        except (CacheError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise DocumentError(f"{path} is damaged ({error}). Read the document again.") from error
        seen = cache.stats().seen_tokens
        if seen != header.seen_tokens:
            raise DocumentError(f"{path} is damaged: {seen} tokens instead of {header.seen_tokens}. Read the document again.")
        return cls(runner, cache, header.text_sha256)


# -- files ----------------------------------------------------------------------------------------------------------------------------


def _settings(eviction: Eviction) -> str:
    """Everything that decides what is evicted, a NAMM by its fingerprint; equal texts mean equal behaviour."""
    policy = {field.name: getattr(eviction.policy, field.name) for field in fields(eviction.policy)}
    own = {name: value.fingerprint if isinstance(value, Namm) else repr(value) for name, value in policy.items()}
    rest = {name: getattr(eviction, name) for name in ("compete", "interval", "sinks", "recent", "protected")}
    return json.dumps({"policy": eviction.policy.name, **own, "budget": str(eviction.budget), **rest}, sort_keys=True)


def _write(path: Path, tensors: dict[str, Tensor], header: str) -> None:
    # beside the target, because a rename is atomic only within one file system
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        save_file(tensors, part, {_HEADER: header})
        part.replace(path)
    except OSError as error:
        raise DocumentError(f"{path} cannot be written: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise DocumentError(f"{path} cannot be written: {error}.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    if not path.is_file():
        what = "is a folder, not a saved memory" if path.is_dir() else "is not there"
        raise DocumentError(f"{path} {what}; save one with DocumentMemory.save or `namm-llm read`.")
    try:
        with safe_open(str(path), framework="pt") as file:
            values = json.loads((file.metadata() or {})[_HEADER])
            if values["version"] != VERSION:
                raise DocumentError(
                    f"{path} has format version {values['version']}, this program knows version {VERSION}. Read the document again."
                )
            return _Header(**values), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise DocumentError(f"{path} is damaged or cut short ({path.stat().st_size} bytes): {error}. Read the document again.") from error
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DocumentError(f"{path} is a safetensors file, but no saved memory of a document.") from error


def _check_belongs(path: Path, header: _Header, runner: Reader[Any, Any]) -> None:
    if header.fingerprint != runner.fingerprint:
        raise DocumentError(
            f"{path} was saved with the weights of {header.model}, this runner has {runner.model_id} (or the same in another "
            "quantization or dtype). Load that model, or read the document again."
        )
    if header.settings != _settings(runner.eviction):
        raise DocumentError(
            f"{path} was read with the settings '{header.policy}', this runner has '{runner.eviction.describe()}' (or another interval or "
            "NAMM). Use the same settings, or read the document again."
        )


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, checked: DocumentError, in one line, if it is missing, a folder, binary, not UTF-8 or empty."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DocumentError(f"there is no file {path}.") from error
    except IsADirectoryError as error:
        raise DocumentError(f"{path} is a folder; name a text file.") from error
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "binary" if b"\0" in data else "not UTF-8 text"
        raise DocumentError(f"{path} is {kind} (byte {error.start} of {len(data)}); convert it to UTF-8 text first.") from error
    check_text(text, str(path))
    return text


def check_text(text: str, name: str = "the document") -> None:
    """DocumentError for what cannot be read: nothing at all, or what is not text."""
    if not isinstance(text, str):
        raise DocumentError(f"{name} is {type(text).__name__}, not text; decode it first.")
    if not text.strip():
        raise DocumentError(f"{name} is empty; there is nothing to read.")
    if (at := text.find("\0")) >= 0:
        raise DocumentError(f"{name} is binary (a zero byte at position {at}); convert it to text first.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"{name} holds half a character at position {error.start}; decode it as UTF-8 first.") from error
