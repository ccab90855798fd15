"""How well evicting caches answer an exam: a whole population in one batch, teacher-forced.

The right answer is put into the model's mouth and each of its tokens is compared with what the
model would have said. One forward pass gives three measures, from the finest to the coarsest:

- `likelihood`: probability of an answer's tokens, geometric mean. It moves whenever a candidate
forgets a little more or less, so
  evolution, which only ranks candidates, sees a difference between any two of them. The default.
- `tokens`: share of the answer's tokens that are the likeliest ones.
- `exact`: 1 if all of them are, which is so exactly when greedy decoding would say this answer. It
is what counts in the end, and as a
  fitness too coarse: with 16 questions it knows 17 values, and most candidates of a generation tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.exams import Exam
from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig

Measure = Literal["likelihood", "tokens", "exact"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@torch.no_grad()
def marks(model: PreTrainedModel, exam: Exam, evictions: Sequence[CacheConfig]) -> Tensor:
    """Mean over the exam's questions, `[rows, 3]` (float64, on the CPU) in the order of `MEASURES`;
    one row for each eviction setting.

    The settings must have one update interval. The cache is retained before a question is seen, and
    questions and answers are never evicted.
    """
    interval = evictions[0].interval
    assert all(eviction.interval == interval for eviction in evictions), (
        "one batch, one update interval"
    )
    cache = ManagedCache.for_population(model, evictions)
    end = len(exam.document)
    _read(model, cache, exam.document, 0, interval)
    cache.settle()
    cache.protect(
        [
            (
                end,
                end
                + max(len(q) + len(a) for q, a in zip(exam.questions, exam.answers, strict=True)),
            )
        ]
    )
    asked = [
        _ask(model, cache.fork(), q, a, end, interval)
        for q, a in zip(exam.questions, exam.answers, strict=True)
    ]
    return torch.stack(asked).mean(0)


def _ask(
    model: PreTrainedModel,
    cache: ManagedCache,
    question: Sequence[int],
    answer: Sequence[int],
    at: int,
    interval: int,
) -> Tensor:
    """Marks `[rows, 3]` of one answer."""
    _read(model, cache, question[:-1], at, interval)
    logits = _read(
        model, cache, [question[-1], *answer[:-1]], at + len(question) - 1, interval, every=True
    )
    wanted = torch.tensor(answer, device=logits.device)
    likely = logits.float().log_softmax(-1)[
        :, torch.arange(len(answer), device=logits.device), wanted
    ]  # [rows, answer]
    right = (logits.argmax(-1) == wanted).double()
    return torch.stack([likely.double().mean(1).exp(), right.mean(1), right.amin(1)], 1).cpu()


def _read(
    model: PreTrainedModel,
    cache: ManagedCache,
    ids: Sequence[int],
    at: int,
    interval: int,
    *,
    every: bool = False,
) -> Tensor:
    """Send the same ids, which stand at `at`, through every row of the cache; logits `[rows, T, V]`
    of all of them, or of the last ones.
    """
    device = cast(torch.nn.Embedding, model.get_input_embeddings()).weight.device
    rows, logits = len(cache.evictions), []
    for start, stop in _pieces(at, len(ids), interval):
        tokens = torch.tensor(ids[start:stop], device=device).expand(rows, -1)
        positions = torch.arange(at + start, at + stop, device=device).expand(rows, -1)
        out = model(
            input_ids=tokens,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=0 if every else 1,
        )
        logits.append(out.logits)
    return torch.cat(logits, 1) if logits else torch.empty(rows, 0, 0)


def _pieces(at: int, count: int, interval: int) -> Iterator[tuple[int, int]]:
    """Where to cut, so that every call ends at an update at the latest: a budget of the whole model
    needs all its layers there.
    """
    start = 0
    while start < count:
        stop = min(count, start + interval - (at + start) % interval)
        yield start, stop
        start = stop
