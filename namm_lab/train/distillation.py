"""A NAMM learnt by gradient from what a full cache really used.

Collect the features of every eviction step with the full cache, train, collect again under the
NAMM's own evictions, train again. Attention is all that it sees, so one NAMM serves every layer and
head. Means and variances of the features come from the model itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from transformers import PreTrainedModel

from namm_lab.train.calibration import zeroed
from namm_lab.train.collection import FeatureSample, collect
from namm_lab.train.documents import TrainDocument
from namm_lab.train.families import DEFAULT, FAMILIES, for_model
from namm_lab.train.target_attention import target_attention
from namm_llm import CacheConfig, Namm, UsageError, make_cache_config
from namm_llm.config import INTERVAL, BudgetScope

Loss = Literal["needed", "ranking"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
Report = Callable[[dict[str, float]], None]
OnRound = Callable[[int, Namm], None]


@dataclass(frozen=True)
class DistilSettings:
    """How a NAMM is distilled. Raises BudgetError, PolicyError or UsageError for values that make
    no sense.
    """

    steps: int = 1000
    """Gradient steps of each round."""
    rounds: int = 3
    """Collections: the first with the full cache, the others under the NAMM's own evictions."""
    budget: float = 0.03125
    """Share that stays in the rounds after the first."""
    budget_scope: BudgetScope = "model"
    """Whose tokens share it."""
    interval: int = INTERVAL
    """Tokens between two eviction steps."""
    loss: Loss = "needed"
    """needed: cross entropy of whether a token is needed; ranking: of which token of a pair of any
    two heads and eviction steps is paid more, weighted by how much more.
    """
    enough: float = 1.0
    """Attention from which on a token counts as wholly needed."""
    positive_weight: float = 4.0
    """Of needed tokens in the loss `needed`; few are."""
    batch: int = 8
    """KV heads at an eviction step that make a gradient step."""
    rate: float = 5e-3
    """Highest learning rate; a fifth of it suits a NAMM with attention between tokens."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"the loss must be {' or '.join(LOSSES)}, not {self.loss!r}")
        self.config(Namm.zeros())  # says what is wrong with them

    def config(self, namm: Namm) -> CacheConfig:
        """The NAMM's cache in the rounds after the first."""
        return make_cache_config(
            "namm",
            namm=namm,
            budget=self.budget,
            budget_scope=self.budget_scope,
            interval=self.interval,
        )


def distil(
    model: PreTrainedModel,
    documents: Sequence[TrainDocument],
    settings: DistilSettings | None = None,
    report: Report | None = None,
    family: Namm | None = None,
    on_round: OnRound = lambda number, namm: None,
) -> Namm:
    """A NAMM for `model`: the network of arXiv 2410.13166, by gradient and not by evolution.

    family: any NAMM of the wanted form, the default one of `families.py` if there is none; its
    numbers do not matter. report: steps, mean loss since the last report, and samples, every 100
    steps and at the end of a round. on_round: told the number, from 1, of each round that has
    ended, and its NAMM.
    """
    settings = settings or DistilSettings()
    rng = random.Random(settings.seed)
    namm = zeroed(for_model(family or FAMILIES[DEFAULT], model))
    keeping = make_cache_config("namm", namm=namm, interval=settings.interval)
    targets = [target_attention(model, document) for document in documents]
    samples: list[FeatureSample] = []
    for number in range(settings.rounds):
        config = settings.config(namm) if number else keeping
        for document, target in zip(documents, targets, strict=True):
            samples += collect(model, document, target, config)
        if not number:
            namm = initial(namm, samples, settings.seed)
        namm = fit(namm, samples, settings, rng, report)
        on_round(number + 1, namm)
    return namm


def initial(form: Namm, samples: Sequence[FeatureSample], seed: int) -> Namm:
    """Small random parameters, and the statistics of the features.

    A NAMM with query replay begins with the replayed attention as its score: whatever else adds to
    the score begins at 0.
    """
    settings = form.settings
    states = torch.cat([settings.scaled(sample.state) for sample in samples])
    theta = 0.1 * torch.randn(form.theta.shape, generator=torch.Generator().manual_seed(seed))
    if settings.replay:
        parts = form.weights(theta)
        others = (*parts.attention[2:], *parts.hidden[2:], *parts.heads)
        for piece in (parts.weight, parts.bias, *others):
            piece.zero_()
        parts.weight[settings.recency.size + settings.state_width - 1] = 1.0
    return replace(form, theta=theta).with_statistics(states.mean(0), states.var(0, correction=0))


def fit(
    namm: Namm,
    samples: Sequence[FeatureSample],
    settings: DistilSettings,
    rng: random.Random,
    report: Report | None,
) -> Namm:
    """One round of gradient steps."""
    theta = torch.nn.Parameter(namm.vector)
    optimizer = torch.optim.AdamW([theta], lr=settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, max(1, settings.steps))
    losses: list[float] = []
    for step in range(1, settings.steps + 1):
        learner = replace(namm, theta=theta)
        batch = rng.sample(samples, min(settings.batch, len(samples)))
        loss = _loss(learner, batch, settings, rng)
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


def _loss(
    namm: Namm, batch: Sequence[FeatureSample], settings: DistilSettings, rng: random.Random
) -> Tensor:
    scores = [
        namm.scores(namm.features(sample.state, sample.ages), sample.ages.new_tensor(sample.head))
        for sample in batch
    ]
    if settings.loss == "ranking":
        targets = torch.cat([sample.target for sample in batch])
        return _ranking_loss(torch.cat(scores), targets, rng)
    needed = [(sample.target / settings.enough).clamp(max=1.0) for sample in batch]
    weight = scores[0].new_tensor(settings.positive_weight)
    losses = [
        binary_cross_entropy_with_logits(*pair, pos_weight=weight)
        for pair in zip(scores, needed, strict=True)
    ]
    return torch.stack(losses).mean()


def _ranking_loss(scores: Tensor, targets: Tensor, rng: random.Random) -> Tensor:
    """Each of `scores` `[N]` against another one, drawn at random: pairs of all heads, so that what
    is learnt is a budget for each head as well as an order within it.
    """
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    other = torch.randperm(len(scores), generator=generator).to(scores.device)
    more = targets - targets[other]
    losses = softplus(-(scores - scores[other]) * more.sign()) * more.abs()
    return losses.sum() / more.abs().sum().clamp_min(1e-6)
