"""Fidelity: how far the answers with an evicted cache are from the full cache's, on texts without
labels.

Each document is read once with the full cache and once with each setting. Behind it come probes,
teacher-forced: the text that follows it, passages of it that are to be repeated, and the full
cache's own answers to fixed requests. At each of their tokens the two distributions are compared.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from namm_lab.evaluate.intervals import interval
from namm_lab.evaluate.plan import CacheSetting, Evaluation
from namm_lab.rows import Row, RowFile
from namm_lab.tasks.texts import folder_texts
from namm_llm import Document, Runner, UsageError, __version__
from namm_llm.engine import forward

CONTINUATION, PASSAGES, PASSAGE, ANSWER = 128, 3, 48, 32  # tokens; passages of a document
REPEAT = 'Repeat the passage of the text that begins with "{start}", word for word.'
REQUESTS = (
    "Summarize the text in two sentences.",
    "List the three most important points of the text.",
    "Which names and numbers does the text mention first?",
)
KINDS = ("continuation", "passage", "request")
KEY = ("version", "fingerprint", "document", "policy", "budget", "cache", "interval", "namm")
OnRow = Callable[[Row, int, int], None]


@dataclass(frozen=True)
class Probe:
    """What comes behind a document, and is scored token by token."""

    kind: str
    """One of `KINDS`."""
    prompt: list[int]
    """At least one token, not scored."""
    target: list[int]
    """At least one token."""


@dataclass(frozen=True)
class Reference:
    """What the full cache says to a probe."""

    likeliest: Tensor
    """`[T]`: the likeliest token at each of the target's."""
    logarithms: Tensor
    """`[T, V]`, float16: all log-probabilities."""


def measure_fidelity(
    runner: Runner,
    plan: Evaluation,
    settings: Sequence[CacheSetting],
    *,
    file: RowFile | None = None,
    on_row: OnRow | None = None,
) -> list[Row]:
    """A row for each document of `plan.texts` and each setting that evicts, documents in a random
    order that is always the same.

    file: rows in it that measured the same are taken from there; new ones are added. Raises
    UsageError for a folder without a document of the length asked for.
    """
    documents = split_documents(runner, str(plan.texts), plan.lengths[0])
    random.Random(plan.seed).shuffle(documents)
    documents = documents[: plan.samples]
    rows: list[Row] = []
    for text, following in documents:
        keys = [_key(runner, text, setting) for setting in settings]
        found = [file.find(key) if file is not None else None for key in keys]
        reader = _read(runner, text, following) if None in found else None
        for setting, key, row in zip(settings, keys, found, strict=True):
            if row is None:
                assert reader is not None
                row = {**key, **_compare(runner.with_cache(setting.config), text, *reader)}
                if file is not None:
                    file.add(row)
            rows.append(row)
            if on_row is not None:
                on_row(row, len(rows), len(documents) * len(settings))
    return rows


def split_documents(runner: Runner, folder: str, length: int) -> list[tuple[str, str]]:
    """The folder's texts in documents of about `length` tokens, each with the text that follows.
    UsageError if there is none.
    """
    found, longest = list[tuple[str, str]](), 0
    for text in folder_texts(folder):
        starts = runner.token_starts(text)
        longest = max(longest, len(starts))
        for at in range(0, len(starts) - length - CONTINUATION, length + CONTINUATION):
            cuts = [starts[at], starts[at + length], starts[at + length + CONTINUATION]]
            found.append((text[cuts[0] : cuts[1]], text[cuts[1] : cuts[2]]))
    if not found:
        raise UsageError(
            f"{folder} has no text of {length + CONTINUATION} tokens, the longest has {longest}: "
            "give a smaller --lengths."
        )
    return found


def _read(runner: Runner, text: str, following: str) -> tuple[list[Probe], list[Reference]]:
    """The probes of a document, and what the full cache says to them."""
    full = runner.with_cache("full").read(text)
    probes = list(_probes(runner, full, text, following))
    return probes, [Reference(scores.argmax(-1), scores.half()) for scores in _scores(full, probes)]


def _probes(runner: Runner, full: Document, text: str, following: str) -> Iterator[Probe]:
    format = runner.session.format
    ids = format.more(following)
    yield Probe(KINDS[0], ids[:1], ids[1:])
    starts = runner.token_starts(text)
    for number in range(PASSAGES):
        at = (2 * number + 1) * (len(starts) - PASSAGE) // (2 * PASSAGES)
        passage = text[starts[max(at, 0)] : starts[min(at + PASSAGE, len(starts) - 1)]]
        asked = format.request(REPEAT.format(start=" ".join(passage.split()[:6])))
        yield Probe(KINDS[1], asked, format.encode(passage.lstrip()) or asked[-1:])
    answers = full.ask_many(REQUESTS, max_tokens=ANSWER)
    for request, answer in zip(REQUESTS, answers, strict=True):
        if target := format.encode(answer.text):
            yield Probe(KINDS[2], format.question(request), target)


def _scores(document: Document, probes: Sequence[Probe]) -> list[Tensor]:
    """Log-probabilities `[T, V]` at the targets of each probe."""
    model = document.session.loaded.model

    def run() -> list[Tensor]:
        found = []
        for probe in probes:
            cache = document.cache.fork()
            start = forward.tokens_seen(cache)
            cache.protect([(start, start + len(probe.prompt))])
            ids = torch.tensor([[*probe.prompt, *probe.target[:-1]]])
            logits = torch.cat([piece[0].cpu() for piece in forward.feed(model, cache, ids)])
            found.append(logits[len(probe.prompt) - 1 :].float().log_softmax(-1))
        return found

    return document.session.call(run)


def _compare(
    runner: Runner, text: str, probes: Sequence[Probe], references: Sequence[Reference]
) -> Row:
    """What a setting comes to on one document."""
    document = runner.read(text)
    agree: dict[str, list[float]] = {kind: [] for kind in KINDS}
    kept, divergence, excess = list[float](), list[float](), list[float]()
    for probe, full, scores in zip(probes, references, _scores(document, probes), strict=True):
        same = scores.argmax(-1) == full.likeliest
        agree[probe.kind] += same.float().tolist()
        reference = full.logarithms.float()
        divergence += (reference.exp() * (reference - scores)).sum(-1).clamp_min(0).tolist()
        if probe.kind == KINDS[0]:
            at = torch.tensor(probe.target)[:, None]
            excess += (reference.gather(1, at) - scores.gather(1, at))[:, 0].tolist()
        elif probe.kind == KINDS[2]:  # as far as the two greedy answers are the same
            kept.append(float(same.long().cumprod(0).sum()) / len(same))
    shares = {kind: _mean(values) for kind, values in agree.items() if values}
    stats = document.cache.stats()
    return {
        "fidelity": _mean(list(shares.values())),
        **shares,
        "answer": _mean(kept) if kept else 1.0,
        "kl": _mean(divergence),
        "log_perplexity": _mean(excess),
        "tokens": stats.seen_tokens,
        "kept_fraction": stats.kept_fraction,
        "nbytes": stats.nbytes,
        "full_nbytes": stats.full_nbytes,
    }


def summary(rows: Sequence[Row]) -> Row:
    """Means over the documents of one setting; `low` and `high` are of the fidelity, at 95 %."""
    names = ("fidelity", *KINDS, "answer", "kl", "log_perplexity", "kept_fraction", "nbytes")
    means = {name: _mean([row[name] for row in rows if name in row]) for name in names}
    low, high = interval([row["fidelity"] for row in rows])
    first = {name: rows[0][name] for name in ("policy", "budget", "cache")}
    return {**first, **means, "low": low, "high": high, "documents": len(rows)}


def _key(runner: Runner, text: str, setting: CacheSetting) -> Row:
    return {
        "version": __version__,
        "model": runner.model_id,
        "fingerprint": runner.fingerprint,
        "document": hashlib.sha256(text.encode()).hexdigest()[:12],
        "policy": setting.config.policy.name,
        "budget": setting.budget,
        "cache": setting.config.describe(),
        "interval": setting.config.interval,
        "namm": setting.namm,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
