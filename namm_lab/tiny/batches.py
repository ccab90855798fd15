"""Examples as tensors: padding and position jumps."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from namm_lab.tiny.example import Example


@dataclass(frozen=True)
class Batch:
    """Examples side by side, all tensors `[batch, length]`."""

    ids: Tensor
    positions: Tensor
    loss: Tensor
    """Weight of the prediction of each token."""
    heads: Tensor
    """Which tokens decide an answer, bool."""

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def jumping_positions(rng: random.Random, length: int, cuts: list[int], reach: int) -> Tensor:
    """Positions that skip ahead at some of `cuts`, up to `reach`: short examples teach long
    distances.
    """
    steps = torch.ones(length, dtype=torch.long)
    steps[0] = 0
    extra = int(length * (reach / length) ** rng.random()) - length
    if cuts and extra > 0 and rng.random() < 0.6:
        chosen = rng.sample(cuts, min(len(cuts), rng.randint(1, 6)))
        if rng.random() < 0.5:
            chosen.append(cuts[-1])
        shares = [rng.random() for _ in chosen]
        for cut, share in zip(chosen, shares, strict=True):
            steps[cut] += int(extra * share / sum(shares))
    return steps.cumsum(0)


def collate(rng: random.Random, examples: list[Example], pad: int, reach: int) -> Batch:
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), pad)
    loss, heads = (
        torch.zeros(len(examples), length),
        torch.zeros(len(examples), length, dtype=torch.bool),
    )
    positions = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        loss[row, : len(example.ids)] = torch.tensor(example.weights)
        heads[row, example.heads] = True
        positions[row] = jumping_positions(rng, length, example.cuts, reach)
    return Batch(ids, positions, loss, heads)


def text_batch(windows: list[list[int]], bos: int) -> Batch:
    """Plain text, every token of which is learned."""
    ids = torch.tensor([[bos, *window] for window in windows])
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    return Batch(ids, positions, torch.ones(ids.shape), torch.zeros(ids.shape, dtype=torch.bool))
