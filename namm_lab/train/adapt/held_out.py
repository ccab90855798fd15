"""What an adapter is worth on texts that it has not seen, beside the model without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from namm_lab.train.adapt.reading import read
from namm_lab.train.adapt.samples import AdaptSample, TextSource
from namm_lab.train.adapt.settings import Loss
from namm_llm import CacheConfig, make_cache_config

MEASURED: tuple[Loss, ...] = ("next", "repeat")


@dataclass(frozen=True)
class HeldOut:
    """One row of the report: a kind of text, with or without the adapter, one cache."""

    loss: str
    """`next` or `repeat`."""
    cache: str
    """`full`, or the settings under which it evicts."""
    adapted: bool
    nats: float
    """Mean loss of a token, in nats."""
    agreement: float
    """Share of the tokens where the likeliest one is that of the model without adapter and with the
    full cache."""
    tokens: int
    """How many were compared."""


def measure(
    adapted: PeftModel,
    source: TextSource,
    config: CacheConfig,
    count: int,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[HeldOut]:
    """Read `count` samples of both kinds, each with and without adapter and eviction."""
    model: Any = adapted.get_base_model()
    rows: list[HeldOut] = []
    done = 0
    caches = {"full": make_cache_config("full", interval=config.interval)}
    caches |= {config.describe(): config}
    for loss in MEASURED:
        found: dict[tuple[str, bool], list[tuple[Tensor, Tensor]]] = {}
        for number in range(count):
            sample = source.sample(loss, f"held out {number}")
            for name, cache in caches.items():
                with adapted.disable_adapter():
                    found.setdefault((name, False), []).append(_predict(model, sample, cache))
                found.setdefault((name, True), []).append(_predict(model, sample, cache))
                done += 2
                on_done(done, 4 * count * len(MEASURED))
        reference = [likeliest for _, likeliest in found["full", False]]
        rows += [_row(loss, *key, pairs, reference) for key, pairs in found.items()]
    return rows


def _predict(
    model: PreTrainedModel, sample: AdaptSample, config: CacheConfig
) -> tuple[Tensor, Tensor]:
    """Loss of each token, and the likeliest one."""
    logits = read(model, sample, config).logits.float()
    target = torch.tensor(sample.target, device=logits.device)
    return cross_entropy(logits, target, reduction="none").cpu(), logits.argmax(-1).cpu()


def _row(
    loss: str,
    cache: str,
    adapted: bool,
    pairs: Sequence[tuple[Tensor, Tensor]],
    reference: Sequence[Tensor],
) -> HeldOut:
    nats = torch.cat([each for each, _ in pairs])
    same = torch.cat([likeliest for _, likeliest in pairs]) == torch.cat(list(reference))
    return HeldOut(loss, cache, adapted, float(nats.mean()), float(same.double().mean()), len(nats))
