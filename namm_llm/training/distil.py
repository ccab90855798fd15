"""A NAMM learnt by gradient from what a full cache really used.

Collect the features of every update with the full cache, train, collect again under the NAMM's own evictions, train again. Attention is all
that it sees, so one NAMM serves every layer and head. Means and variances of the features come from the model itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from namm_llm.namm import Namm
from namm_llm.policies import Compete, NammPolicy, make_eviction
from namm_llm.training.collection import Sample, collect
from namm_llm.training.lessons import Lesson

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class DistilSettings:
    """steps: of each round. rounds: collections; the first with the full cache, the others under the NAMM's own evictions at `budget`.
    enough: attention from which on a token counts as wholly needed. positive_weight: of needed tokens in the loss; few are. batch: KV
    heads at an update that make a step.
    """

    steps: int = 1000
    rounds: int = 2
    budget: float = 0.25
    compete: Compete = "model"
    interval: int = 512
    enough: float = 0.1
    positive_weight: float = 4.0
    batch: int = 8
    rate: float = 3e-3
    seed: int = 0


def distil(model: PreTrainedModel, lessons: Sequence[Lesson], settings: DistilSettings | None = None, report: Report | None = None) -> Namm:
    """A NAMM for `model` (arXiv 2410.13166's network, gradient in the place of evolution)."""
    settings = settings or DistilSettings()
    rng = random.Random(settings.seed)
    namm = Namm.zeros()
    samples: list[Sample] = []
    for number in range(settings.rounds):
        eviction = make_eviction(NammPolicy(namm), interval=settings.interval)
        if number:
            eviction = make_eviction(NammPolicy(namm), budget=settings.budget, compete=settings.compete, interval=settings.interval)
        samples += [sample for lesson in lessons for sample in collect(model, lesson, eviction)]
        if not number:
            namm = _begin(samples, settings.seed)
        namm = _train(namm, samples, settings, rng, report)
    return namm


def _begin(samples: Sequence[Sample], seed: int) -> Namm:
    """Small random parameters, and the statistics of the features."""
    states = torch.cat([sample.state.float() for sample in samples])
    zeros = Namm.zeros()
    theta = 0.1 * torch.randn(zeros.vector.shape, generator=torch.Generator().manual_seed(seed))
    return Namm.from_vector(theta, states.mean(0), states.var(0, correction=0))


def _train(namm: Namm, samples: Sequence[Sample], settings: DistilSettings, rng: random.Random, report: Report | None) -> Namm:
    theta = torch.nn.Parameter(namm.vector)
    optimizer = torch.optim.AdamW([theta], lr=settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, settings.steps)
    total = 0.0
    for step in range(1, settings.steps + 1):
        learner = Namm.from_vector(theta, namm.mean, namm.variance)
        loss = torch.stack([_loss(learner, sample, settings) for sample in rng.sample(samples, min(settings.batch, len(samples)))]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([theta], 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if report is not None and step % 100 == 0:
            report({"step": step, "loss": total / 100, "samples": len(samples)})
            total = 0.0
    return Namm.from_vector(theta.detach().clone(), namm.mean, namm.variance)


def _loss(namm: Namm, sample: Sample, settings: DistilSettings) -> Tensor:
    scores = namm.scores(namm.features(sample.state, sample.ages))
    needed = (sample.wanted / settings.enough).clamp(max=1.0)
    return binary_cross_entropy_with_logits(scores, needed, pos_weight=scores.new_tensor(settings.positive_weight))
