"""Documents that are read once into memories, and questions to those that a retriever found.

A question is put to all of them in one batch, so that nothing of a document is read again, and the
answers are combined with one more. Memories hold no text: a folder keeps it beside them, for the
sentences that an answer is shown with.
"""

from __future__ import annotations

import os
import re
import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
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
_LEAST_SHARE = 0.5  # of the entries of a sentence, one for each layer, head and token
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A document that was asked, and what it said."""

    file: Path
    answer: Generation
    kept: tuple[str, ...]
    """Sentences of its text that its memory keeps and that are nearest to the answer."""


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
    sentences: int = 3,
    combine: bool = False,
    cancel: threading.Event | None = None,
) -> Combined:
    """The combined answer of the memories in these files. UsageError for none.

    owner: the memories are closed when it is gone, at the latest. sentences: most of them that a
    source is shown with. combine: ask the memories joined as one, instead of each by itself and the
    model once more for one answer; each source then has the one answer.
    """
    paths = [Path(file) for file in dict.fromkeys(map(os.fspath, files))]
    if not paths:
        raise UsageError("there is no document to ask; the retriever found none with a memory.")
    memories = [OPEN.open(path, call.runner, owner) for path in paths]
    if combine:
        joined = call.runner.combine(memories)
        answers = [joined.ask(question, call.params, cancel=cancel)] * len(memories)
    else:
        answers = call.runner.ask_each(memories, question, call.params, cancel=cancel)
    sources = tuple(
        Source(path, answer, _shown(call.runner, memory, path, answer.text, sentences))
        for path, memory, answer in zip(paths, memories, answers, strict=True)
    )
    single = combine or len(answers) == 1
    whole = answers[0] if single else _combine(call, answers, question, cancel)
    return Combined(whole.text.strip(), whole.finish_reason, sources)


def _shown(runner: Runner, memory: Document, file: Path, answer: str, most: int) -> tuple[str, ...]:
    """None if the text is not there any more."""
    if not most or not _text_of(file).is_file():
        return ()
    text = _text_of(file).read_text(encoding="utf-8")
    return tuple(kept_sentences(runner, memory, text, answer, most))


def kept_sentences(
    runner: Runner, memory: Document, text: str, answer: str, most: int
) -> list[str]:
    """Sentences of which at least half as many entries are kept as of the whole document: those
    that share most words with the answer, in the order of the text.
    """
    from namm_llm import kept_entries

    shares = kept_entries(memory.cache).float().mean((0, 1)).tolist()
    least = _LEAST_SHARE * sum(shares) / max(len(shares), 1)
    starts = runner.document_starts(text)
    found: list[tuple[int, int, str]] = []
    for match in _SENTENCE.finditer(text):
        tokens = slice(bisect_left(starts, match.start()), bisect_left(starts, match.end()))
        kept, words = shares[tokens], _words(match[0]) & _words(answer)
        if words and kept and sum(kept) >= least * len(kept):
            found.append((-len(words), match.start(), " ".join(match[0].split())))
    return [sentence for _, _, sentence in sorted(sorted(found)[:most], key=itemgetter(1))]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


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
