"""Scores to kept tokens, by a threshold or a budget.

Works on lists with one entry for each KV head that shares the budget; knows nothing of the meaning
of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def by_threshold(
    scores: Sequence[Tensor], forced: Sequence[Tensor], threshold: float
) -> list[Tensor]:
    """Every token that scores at least `threshold`, or is forced (namm.md section 5, without its
    padding).
    """
    return [
        (s >= threshold).logical_or_(f).nonzero()[:, 0] for s, f in zip(scores, forced, strict=True)
    ]


def by_padded_threshold(
    scores: Sequence[Tensor], forced: Sequence[Tensor], threshold: float
) -> list[Tensor]:
    """The published rule: the fullest head sets the count, the others fill up with their best
    tokens below the threshold.
    """
    count = max(len(kept) for kept in by_threshold(scores, forced, threshold))
    return [by_budget([s], [f], count)[0] for s, f in zip(scores, forced, strict=True)]


def by_budget(scores: Sequence[Tensor], forced: Sequence[Tensor], total: int) -> list[Tensor]:
    """The best `total` tokens over all given heads together, forced ones first; of equal scores the
    newer token stays.

    scores: `[N_g]` for each head. forced: bool `[N_g]`. Returns ascending indices for each head. If
    more than `total` are forced, just the forced ones stay.
    """
    lengths = [s.shape[0] for s in scores]
    if sum(lengths) <= total:
        return [torch.arange(n, device=s.device) for n, s in zip(lengths, scores, strict=True)]
    must = torch.cat(list(forced))
    total = max(total, int(must.sum()))
    if not total:
        return [s.new_empty(0, dtype=torch.long) for s in scores]
    # NaN goes first
    ranked = (
        torch.cat(list(scores))
        .float()
        .nan_to_num(-torch.inf, torch.inf, -torch.inf)
        .masked_fill_(must, torch.inf)
    )
    # without sorting: the order of the others does not matter
    least = _least_of_best(ranked, total)
    kept = ranked > least
    equal = (ranked == least).nonzero()[:, 0]
    kept[equal[equal.shape[0] - (total - int(kept.sum())) :]] = True
    return [part.nonzero()[:, 0] for part in torch.split(kept, lengths)]


def with_floor(scores: Sequence[Tensor], forced: Sequence[Tensor], count: int) -> list[Tensor]:
    """`forced`, and the best `count` tokens of each head: the safeguard of AdaKV (arXiv 2407.11550)
    as in kvpress, so that no head is starved by the others.
    """
    floors = []
    for s, f in zip(scores, forced, strict=True):
        floors.append(f.index_fill(0, by_budget([s], [f], count)[0], True))
    return floors


def _least_of_best(ranked: Tensor, total: int) -> Tensor:
    """The number `[]` that the best `total` of `ranked` `[N]` are not below."""
    if ranked.is_cuda:  # where `kthvalue` has one block of threads for all of them
        return ranked.topk(total, sorted=False).values.amin()
    return ranked.kthvalue(ranked.shape[0] - total + 1).values
