"""Documents on random ids, whose right answers are what a model says with the full cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from transformers import DynamicCache, PreTrainedModel

from namm_lab.train.documents import EvalDocument
from namm_lab.train.evolve_settings import EvolveSettings
from tests.architectures import random_ids

INTERVAL = 32
QUICK = EvolveSettings(
    stages=(("echo",),),
    generations=3,
    population=4,
    sigma=0.3,
    budgets=("0.3", "threshold"),
    interval=INTERVAL,
    documents=1,
    validation=1,
    validate_every=2,
    batch=5,
)


def greedy(model: PreTrainedModel, ids: Sequence[int], tokens: int) -> tuple[int, ...]:
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]),
            max_new_tokens=tokens,
            do_sample=False,
            past_key_values=DynamicCache(config=model.config),
        )
    return tuple(out[0, len(ids) :].tolist())


@cache
def echo(model: PreTrainedModel, task: str, length: int, seed: int) -> EvalDocument:
    document, *questions = (
        tuple(random_ids(1, n, seed + i)[0].tolist()) for i, n in enumerate((length, 9, 5))
    )
    answers = tuple(greedy(model, [*document, *question], 4) for question in questions)
    return EvalDocument(task, document, tuple(questions), answers)


class Echo:
    """`draw` of an `Evolution`; `log` has what was asked for."""

    def __init__(self, model: PreTrainedModel, length: int = 70) -> None:
        self.model, self.length, self.log = model, length, []

    def __call__(
        self, split: str, tasks: Sequence[str], seed: int, count: int
    ) -> list[EvalDocument]:
        self.log.append((split, tuple(tasks), seed, count))
        return [
            self.document(task, seed % 1000 + 7 * number + (500 if split == "validation" else 0))
            for task in tasks
            for number in range(count)
        ]

    def document(self, task: str, seed: int) -> EvalDocument:
        return echo(self.model, task, self.length, seed)
