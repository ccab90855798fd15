"""Scores to kept tokens."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from namm_llm.policies.selection import by_budget, by_padded_threshold, by_threshold

heads = st.lists(st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=1, max_size=30), min_size=1, max_size=4)


def tensors(drawn):
    scores = [torch.tensor([float(score) for score, _ in head]) for head in drawn]
    forced = [torch.tensor([must and i % 3 == 0 for i, (_, must) in enumerate(head)]) for head in drawn]
    return scores, forced


@given(heads, st.integers(1, 60))
def test_by_budget_keeps_the_highest_and_all_forced(drawn, total):
    scores, forced = tensors(drawn)
    kept = by_budget(scores, forced, total)
    stays = [torch.zeros_like(f).index_fill_(0, k, True) for f, k in zip(forced, kept, strict=True)]
    everything, must, chosen = torch.cat(scores), torch.cat(forced), torch.cat(stays)
    assert int(chosen.sum()) == min(len(everything), max(total, int(must.sum())))
    assert bool(chosen[must].all())
    free = chosen & ~must
    if bool(free.any()) and bool((~chosen).any()):
        assert everything[free].min() >= everything[~chosen].max()
    assert all(torch.equal(k, k.sort().values) for k in kept)


def test_of_equal_scores_the_newer_stays():
    assert by_budget([torch.zeros(6)], [torch.zeros(6, dtype=torch.bool)], 2)[0].tolist() == [4, 5]


@given(heads)
def test_thresholds(drawn):
    scores, forced = tensors(drawn)
    own = by_threshold(scores, forced, 0.0)
    for kept, score, must in zip(own, scores, forced, strict=True):
        assert kept.tolist() == [i for i in range(len(score)) if score[i] >= 0 or must[i]]
    padded = by_padded_threshold(scores, forced, 0.0)
    count = max(len(kept) for kept in own)
    assert [len(kept) for kept in padded] == [min(count, len(score)) for score in scores]
