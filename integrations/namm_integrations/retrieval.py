"""Documents that are read once into memories, and questions to those that a retriever found.

A question is put to all of them in one batch, so that nothing of a document is read again, and the
answers are combined with one more. Memories hold no text: a folder keeps it beside them, for the
passages that an answer is shown with.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namm_integrations.call import Call
from namm_integrations.memories import OPEN
from namm_llm import UsageError

if TYPE_CHECKING:  # these import torch, which takes seconds
    from namm_llm import Document, Generation, Runner

KEY = "namm"
"""Where a document's metadata names the file of its memory; it can be given as `memory`."""
FINGERPRINT_KEY = "namm_sha256"
COMBINE = (
    "Answers from {count} documents:\n\n{answers}\n\nGive one answer to the question from them; "
    "leave out what does not answer it.\nQuestion: {question}"
)
_LEAST_SHARE = 0.5  # of all layers and heads that keep a token


@dataclass(frozen=True)
class Source:
    """A document that was asked, and what it said."""

    file: Path
    answer: Generation
    kept: tuple[str, ...]
    """The longest passages of its text that at least half of all layers and heads keep."""


@dataclass(frozen=True)
class Combined:
    """One answer from several documents."""

    text: str
    finish_reason: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class MemoryFolder:
    """Memories of documents in a folder, each with its text beside it."""

    path: Path

    def add(self, runner: Runner, text: str) -> dict[str, str]:
        """Read a text, unless its memory is there already; what its metadata should say."""
        fingerprint = runner.memory_fingerprint(text)
        file = self.path / f"{fingerprint[:16]}.namm"
        if not file.is_file():
            self.path.mkdir(parents=True, exist_ok=True)
            _text_of(file).write_text(text, encoding="utf-8")
            runner.read(text).save(file)
        return {KEY: str(file), FINGERPRINT_KEY: fingerprint}


def ask_documents(
    call: Call,
    files: Sequence[str | os.PathLike[str]],
    question: str,
    *,
    owner: object,
    passages: int = 3,
    cancel: threading.Event | None = None,
) -> Combined:
    """The combined answer of the memories in these files. UsageError for none.

    owner: the memories are closed when it is gone, at the latest. passages: most kept passages of a
    source.
    """
    paths = [Path(file) for file in dict.fromkeys(map(os.fspath, files))]
    if not paths:
        raise UsageError("there is no document to ask; the retriever found none with a memory.")
    memories = [OPEN.open(path, call.runner, owner) for path in paths]
    answers = call.runner.ask_each(memories, question, call.params, cancel=cancel)
    sources = tuple(
        Source(path, answer, tuple(kept_passages(call.runner, memory, _text_of(path), passages)))
        for path, memory, answer in zip(paths, memories, answers, strict=True)
    )
    whole = answers[0] if len(answers) == 1 else _combine(call, answers, question, cancel)
    return Combined(whole.text.strip(), whole.finish_reason, sources)


def kept_passages(runner: Runner, memory: Document, file: Path, most: int) -> list[str]:
    """The longest passages that are kept, in the order of the text; none if the text is gone."""
    if not most or not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    spans = sorted(_kept_spans(runner, memory, text), key=lambda span: span[0] - span[1])[:most]
    found = [" ".join(text[start:stop].split()) for start, stop in sorted(spans)]
    return [passage for passage in found if passage]


def _kept_spans(runner: Runner, memory: Document, text: str) -> Iterator[tuple[int, int]]:
    """Characters from and to which all tokens are kept."""
    from namm_llm import kept_entries

    shares = kept_entries(memory.cache).float().mean((0, 1)).tolist()
    starts = runner.document_starts(text)
    begun: int | None = None
    for share, start in zip(shares, starts, strict=False):
        is_kept = share >= _LEAST_SHARE and start >= 0
        if is_kept and begun is None:
            begun = start
        elif not is_kept and begun is not None:
            yield begun, start
            begun = None
    if begun is not None:
        yield begun, len(text)


def _combine(
    call: Call, answers: Sequence[Generation], question: str, cancel: threading.Event | None
) -> Any:
    told = "\n\n".join(f"{n}. {answer.text.strip()}" for n, answer in enumerate(answers, 1))
    prompt = COMBINE.format(count=len(answers), answers=told, question=question)
    if not call.runner.has_chat_template:
        return call.runner.generate(prompt, call.params, cancel=cancel)
    messages = [{"role": "user", "content": prompt}]
    return call.runner.chat(messages, call.params, cancel=cancel)


def _text_of(file: Path) -> Path:
    return file.with_suffix(".txt")
