"""A NAMM learnt by gradient from what a full cache really used.

Collect the features of every update with the full cache, train, collect again under the NAMM's own
evictions, train again. Attention is all that it sees, so one NAMM serves every layer and head.
Means and variances of the features come from the model itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from namm_lab.train.collection import Sample, collect
from namm_lab.train.families import DEFAULT, FAMILIES
from namm_lab.train.lessons import TrainDocument, later_attention
from namm_llm.config import BudgetScope, CacheConfig, make_cache_config
from namm_llm.namm import Namm
from namm_llm.namm.layout import parameter_shapes
from namm_llm.policies import NammPolicy

Report = Callable[[dict[str, float]], None]
OnRound = Callable[[int, Namm], None]


@dataclass(frozen=True)
class DistilSettings:
    """steps: of each round. rounds: collections; the first with the full cache, the others under
    the NAMM's own evictions at `budget`. enough: attention from which on a token counts as wholly
    needed. positive_weight: of needed tokens in the loss; few are. batch: KV heads at an update
    that make a step. rate: the highest learning rate, a fifth of it suits a NAMM with attention
    between tokens. probes: token ids of each, for a family that takes them.
    """

    steps: int = 1000
    rounds: int = 3
    budget: float = 0.03125
    budget_scope: BudgetScope = "model"
    interval: int = 512
    enough: float = 1.0
    positive_weight: float = 4.0
    batch: int = 8
    rate: float = 5e-3
    seed: int = 0
    probes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        self.eviction(Namm.zeros())  # says what is wrong with them

    def eviction(self, namm: Namm) -> CacheConfig:
        """The NAMM's cache in the rounds after the first."""
        return make_cache_config(
            self.policy(namm),
            budget=self.budget,
            budget_scope=self.budget_scope,
            interval=self.interval,
        )

    def policy(self, namm: Namm) -> NammPolicy:
        """The NAMM with the probes, if it takes any."""
        return NammPolicy(namm, probes=self.probes if namm.takes_probes else ())


def distil(
    model: PreTrainedModel,
    lessons: Sequence[TrainDocument],
    settings: DistilSettings | None = None,
    report: Report | None = None,
    family: Namm | None = None,
    on_round: OnRound = lambda number, namm: None,
) -> Namm:
    """A NAMM for `model` (arXiv 2410.13166's network, gradient in the place of evolution).

    family: any NAMM of the wanted form, the default one of `families.py` if there is none; its
    numbers do not matter. report: steps, mean loss since the last report, and samples, every 100
    steps and at the end of a round. on_round: told the number, from 1, of each round that has
    ended, and its NAMM.
    """
    settings = settings or DistilSettings()
    rng = random.Random(settings.seed)
    family = family or FAMILIES[DEFAULT]
    namm = replace(family, theta=torch.zeros_like(family.theta))
    wanted = [later_attention(model, lesson) for lesson in lessons]
    samples: list[Sample] = []
    for number in range(settings.rounds):
        eviction = (
            settings.eviction(namm)
            if number
            else make_cache_config(settings.policy(namm), interval=settings.interval)
        )
        samples += [
            sample
            for lesson, most in zip(lessons, wanted, strict=True)
            for sample in collect(model, lesson, most, eviction)
        ]
        if not number:
            namm = _begin(namm, samples, settings.seed)
        namm = _train(namm, samples, settings, rng, report)
        on_round(number + 1, namm)
    return namm


def _begin(family: Namm, samples: Sequence[Sample], seed: int) -> Namm:
    """Small random parameters, and the statistics of the features. A NAMM that reads again begins
    with that attention as its score.
    """
    states = torch.cat([family.scaled(sample.state) for sample in samples])
    theta = 0.1 * torch.randn(family.theta.shape, generator=torch.Generator().manual_seed(seed))
    if family.memory.replay:
        shapes = parameter_shapes(family.feature_count, family.hidden, family.units)
        pieces = list(torch.split(theta, [math.prod(shape) for shape in shapes]))
        attention, (weight, bias, *units) = (
            (pieces[:4], pieces[4:]) if family.hidden else ([], pieces)
        )
        for piece in (
            *attention[2:],
            weight,
            bias,
            *units[2:],
        ):  # what comes out of the attention, of the score and of its units
            piece.zero_()
        weight[family.recency.size + family.state_width - 1] = 1.0
    return replace(family, theta=theta).with_statistics(states.mean(0), states.var(0, correction=0))


def _train(
    namm: Namm,
    samples: Sequence[Sample],
    settings: DistilSettings,
    rng: random.Random,
    report: Report | None,
) -> Namm:
    theta = torch.nn.Parameter(namm.vector)
    optimizer = torch.optim.AdamW([theta], lr=settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, max(1, settings.steps))
    losses: list[float] = []
    for step in range(1, settings.steps + 1):
        learner = replace(namm, theta=theta)
        loss = torch.stack(
            [
                _loss(learner, sample, settings)
                for sample in rng.sample(samples, min(settings.batch, len(samples)))
            ]
        ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([theta], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if report is not None and (step % 100 == 0 or step == settings.steps):
            report({"step": step, "loss": sum(losses) / len(losses), "samples": len(samples)})
            losses.clear()
    return replace(namm, theta=theta.detach().clone())


def _loss(namm: Namm, sample: Sample, settings: DistilSettings) -> Tensor:
    scores = namm.scores(namm.features(sample.state, sample.ages))
    needed = (sample.wanted / settings.enough).clamp(max=1.0)
    return binary_cross_entropy_with_logits(
        scores, needed, pos_weight=scores.new_tensor(settings.positive_weight)
    )
