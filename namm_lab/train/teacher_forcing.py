"""Teacher-forced scores: how well evicting caches answer the questions about a document, a whole
population in one batch.

The right answer is given to the model and each of its tokens is compared with what the model would
have said. One forward pass gives three measures, from the finest to the coarsest:

- `likelihood`: probability of an answer's tokens, geometric mean. It moves whenever a candidate
  forgets a little more or less, so evolution, which only ranks candidates, sees a difference
  between any two of them. The default.
- `tokens`: share of the answer's tokens that are the likeliest ones.
- `exact`: 1 if all of them are, which is so exactly when greedy decoding would say this answer. It
  is what counts in the end, and too coarse as a fitness: with 16 questions it has 17 values, and
  most candidates of a generation tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.documents import EvalDocument
from namm_llm import CacheConfig, ManagedCache
from namm_llm.engine import forward

Measure = Literal["likelihood", "tokens", "exact"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@torch.no_grad()
def teacher_forced_scores(
    model: PreTrainedModel, document: EvalDocument, configs: Sequence[CacheConfig]
) -> Tensor:
    """Mean over the document's questions, `[rows, 3]` (float64, on the CPU) in the order of
    `MEASURES`; one row for each cache setting.

    The settings must have one interval. The document is evicted before a question is seen, and
    questions and answers are never evicted.
    """
    interval = configs[0].interval
    assert all(config.interval == interval for config in configs), "one batch, one interval"
    cache = ManagedCache.for_population(model, configs)
    pairs = list(zip(document.questions, document.answers, strict=True))
    end = len(document.document)
    _read(model, cache, document.document, interval)
    cache.evict()
    cache.protect([(end, end + max(len(question) + len(answer) for question, answer in pairs))])
    scores = [_answer_scores(model, cache.fork(), *pair, interval) for pair in pairs]
    return torch.stack(scores).mean(0)


def _answer_scores(
    model: PreTrainedModel,
    cache: ManagedCache,
    question: Sequence[int],
    answer: Sequence[int],
    interval: int,
) -> Tensor:
    """Scores `[rows, 3]` of one answer."""
    _read(model, cache, question[:-1], interval)
    logits = _read(model, cache, [question[-1], *answer[:-1]], interval, last_only=False)
    targets = torch.tensor(answer, device=logits.device)
    chosen = targets.expand(len(logits), -1)[..., None]
    likely = logits.float().log_softmax(-1).gather(-1, chosen)[..., 0]  # [rows, answer]
    right = (logits.argmax(-1) == targets).double()
    return torch.stack([likely.double().mean(1).exp(), right.mean(1), right.amin(1)], 1).cpu()


def _read(
    model: PreTrainedModel,
    cache: ManagedCache,
    ids: Sequence[int],
    interval: int,
    *,
    last_only: bool = True,
) -> Tensor:
    """Send the same ids through every row of the cache; logits `[rows, T, V]`."""
    rows = len(cache.configs)
    batch = torch.tensor([ids], dtype=torch.int64).expand(rows, -1)
    pieces = list(forward.feed(model, cache, batch, chunk=interval, last_only=last_only))
    return torch.cat(pieces, 1) if pieces else torch.empty(rows, 0, 0)
