"""A sample through a runner: what each of its questions scores, and what the cache held when it was
asked.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor

from namm_lab.tasks.sample import Question, Sample
from namm_llm.cache import CacheStats, ManagedCache
from namm_llm.config import SamplingParams
from namm_llm.engine.decode import PlainBatch, decode
from namm_llm.engine.forward import prefill, tokens_seen
from namm_llm.engine.reply import Reply
from namm_llm.engine.sampling import Sampler
from namm_llm.models.prompt import PromptFormat
from namm_llm.runner import Runner

T = TypeVar("T")
CHUNK = 512


@dataclass(frozen=True)
class Reading:
    """scores: of the questions, from 0 to 1. stats: of the cache, with the document (and in mode
    aware the question) in it.
    """

    scores: list[float]
    stats: list[CacheStats]


def read_agnostic(runner: Runner, sample: Sample) -> Reading:
    """The document is read and retained, then come the questions, each to a fork of the cache."""
    memory = runner.read(sample.document)
    scores = [0.0] * len(sample.questions)
    for limit in {question.max_tokens for question in sample.questions}:
        asked = [
            number
            for number, question in enumerate(sample.questions)
            if question.max_tokens == limit
        ]
        replies = memory.ask_many(
            [sample.questions[number].prompt for number in asked], max_tokens=limit
        )
        for number, reply in zip(asked, replies, strict=True):
            scores[number] = sample.questions[number].score(reply.text)
    return Reading(scores, [memory.cache.stats()])


def read_aware(runner: Runner, sample: Sample) -> Reading:
    """Document and question are one prompt; all of it but its last token is retained before the
    answer begins.
    """
    prompts = _format(runner)
    document = prompts.document(sample.document)

    def read() -> Reading:
        cache = _read(runner, document, head=prompts.head_tokens)
        scores, stats = [], []
        for question in sample.questions:
            reply, found = _answer(
                runner, cache.fork(), prompts.question(question.prompt), question
            )
            scores.append(question.score(reply))
            stats.append(found)
        return Reading(scores, stats)

    return runner.call(read)


def read_on(runner: Runner, sample: Sample) -> Reading:
    """The document as plain text, retained; then its continuation token by token. The score is one
    over its perplexity.
    """
    prompts = _format(runner)
    (question,) = sample.questions
    ids, rest = prompts.prompt(sample.document), prompts.encode(question.answer)

    def read() -> Reading:
        cache = _read(
            runner, ids[:-1], head=1
        )  # the token at the beginning stays, as a chat's head does
        _settle(cache)
        stats = cache.stats()
        likelihood = _log_likelihoods(runner, cache, [ids[-1], *rest]).mean().exp()
        return Reading([float(likelihood)], [stats])

    return runner.call(read)


def _format(runner: Runner) -> PromptFormat:
    loaded = runner.loaded
    return PromptFormat(loaded.tokenizer, loaded.backend, loaded.model_id)


# -- in the runner's thread ------------------------------------------------------------------------
# -----------------------------------


def _read(runner: Runner, ids: list[int], head: int) -> ManagedCache:
    cache = ManagedCache.for_model(runner.loaded.model, eviction=runner.eviction)
    cache.protect([(0, head)])
    _run(prefill(runner.loaded.model, cache, ids, chunk=CHUNK, cancel=Event()))
    return cache


def _answer(
    runner: Runner, cache: ManagedCache, ids: list[int], question: Question
) -> tuple[str, CacheStats]:
    model, start = runner.loaded.model, tokens_seen(cache)
    cache.protect([(start, start + len(ids))])
    _run(prefill(model, cache, ids[:-1], chunk=CHUNK, cancel=Event()))
    _settle(cache)
    stats = cache.stats()
    logits = _run(prefill(model, cache, ids[-1:], chunk=CHUNK, cancel=Event()))
    assert logits is not None
    reply = Reply(
        ids,
        Sampler(SamplingParams(max_tokens=question.max_tokens)),
        question.max_tokens,
        runner.loaded.end_ids,
    )
    for _ in decode(PlainBatch(model, [cache]), [reply], [logits], Event()):
        pass
    return runner.decode(reply.output), stats


@torch.no_grad()
def _settle(cache: ManagedCache) -> None:
    cache.settle()


@torch.no_grad()
def _log_likelihoods(runner: Runner, cache: ManagedCache, ids: list[int]) -> Tensor:
    """Of all ids but the first, `[T - 1]`, as the model sees them one after the other behind the
    cache.
    """
    found, done = [], 0
    while done < len(ids) - 1:
        seen = tokens_seen(cache)
        # no further than to the next update, for which all layers may have to wait
        stop = min(len(ids) - 1, done + cache.eviction.interval - seen % cache.eviction.interval)
        tokens = torch.tensor([ids[done:stop]], device=runner.loaded.device)
        positions = torch.arange(seen, seen + stop - done, device=tokens.device)[None]
        logits = runner.loaded.model(
            input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True
        ).logits[0]
        wanted = torch.tensor(ids[done + 1 : stop + 1], device=logits.device)
        found.append(logits.float().log_softmax(-1).gather(-1, wanted[:, None])[:, 0].cpu())
        done = stop
    return torch.cat(found)


def _run(steps: Generator[int, None, T]) -> T:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
