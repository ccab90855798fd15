"""A sample through a runner: the score of each of its questions, and what the cache held when it
was asked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from namm_lab.tasks.sample import Question, Sample
from namm_llm import CacheStats, ManagedCache, Runner
from namm_llm.engine import forward
from namm_llm.engine.repetition import end_text

CHUNK = 512


@dataclass(frozen=True)
class Reading:
    """What the questions about one document came to."""

    scores: list[float]
    """Of each question, from 0 to 1."""
    stats: list[CacheStats]
    """Of the cache with the document, and in mode aware the question, in it."""


def read_agnostic(runner: Runner, sample: Sample) -> Reading:
    """The document is read and evicted; then come the questions, each to a fork of the cache."""
    document = runner.read(sample.document)
    scores = [0.0] * len(sample.questions)
    for limit in {question.max_tokens for question in sample.questions}:
        numbers = [n for n, each in enumerate(sample.questions) if each.max_tokens == limit]
        prompts = [sample.questions[number].prompt for number in numbers]
        replies = document.ask_many(prompts, max_tokens=limit)
        for number, reply in zip(numbers, replies, strict=True):
            scores[number] = sample.questions[number].score(reply.text)
    return Reading(scores, [document.cache.stats()])


def read_aware(runner: Runner, sample: Sample) -> Reading:
    """Document and question are one prompt, evicted as a whole before the answer begins; only its
    last token is not.
    """
    prompts = runner.session.format
    ids = prompts.document(sample.document)

    def read() -> Reading:
        cache = _read(runner, ids, head=prompts.head_tokens)
        reading = Reading([], [])
        for question in sample.questions:
            asked = prompts.question(question.prompt)
            reply, stats = _answer(runner, cache.fork(), ids, asked, question)
            reading.scores.append(question.score(reply))
            reading.stats.append(stats)
        return reading

    return runner.session.call(read)


def read_continuation(runner: Runner, sample: Sample) -> Reading:
    """The document as plain text, evicted; then its continuation token by token. The score is one
    over its perplexity.
    """
    prompts = runner.session.format
    (question,) = sample.questions
    ids, rest = prompts.prompt(sample.document), prompts.encode(question.answer)

    def read() -> Reading:
        # the first token always stays, as a chat template's head does
        cache = _read(runner, ids[:-1], head=1)
        _end(runner, cache, ids[:-1])
        stats = cache.stats()
        continuation = torch.tensor([[ids[-1], *rest]])
        likelihood = forward.score(runner.loaded.model, cache, continuation).mean().exp()
        return Reading([float(likelihood)], [stats])

    return runner.session.call(read)


# -- in the runner's thread ------------------------------------------------------------------------


def _read(runner: Runner, ids: list[int], head: int) -> ManagedCache:
    cache = ManagedCache.for_population(runner.loaded.model, [runner.config])
    cache.protect([(0, head)])
    _feed(runner, cache, ids)
    return cache


def _feed(runner: Runner, cache: ManagedCache, ids: list[int]) -> Tensor:
    """Logits `[V]` after the last of these ids."""
    pieces = forward.feed(
        runner.loaded.model, cache, torch.tensor([ids]), chunk=CHUNK, last_only=True
    )
    return deque(pieces, maxlen=1)[0][0, -1]


def _end(runner: Runner, cache: ManagedCache, ids: list[int]) -> None:
    """Evict the text `ids` that the cache has just read."""
    loaded, format = runner.loaded, runner.session.format
    deque(end_text(loaded.model, cache, ids, format, positions=loaded.positions), maxlen=0)


def _answer(
    runner: Runner, cache: ManagedCache, text: list[int], ids: list[int], question: Question
) -> tuple[str, CacheStats]:
    """A greedy answer, and what the cache held before its first token."""
    start = forward.tokens_seen(cache)
    cache.protect([(start, start + len(ids))])
    if ids[:-1]:
        _feed(runner, cache, ids[:-1])
    _end(runner, cache, [*text, *ids[:-1]])
    stats = cache.stats()
    tokens: list[int] = []
    logits = _feed(runner, cache, ids[-1:])
    while (token := int(logits.argmax())) not in runner.loaded.end_ids:
        tokens.append(token)
        if len(tokens) == question.max_tokens:
            break
        logits = _feed(runner, cache, [token])
    return runner.decode(tokens), stats
