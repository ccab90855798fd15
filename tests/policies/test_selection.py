"""Scores to kept tokens."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from namm_llm.policies.selection import by_budget, by_padded_threshold, by_threshold, with_floor

heads = st.lists(
    st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=1, max_size=30),
    min_size=1,
    max_size=4,
)


def tensors(drawn):
    scores = [torch.tensor([float(score) for score, _ in head]) for head in drawn]
    forced = [
        torch.tensor([must and i % 3 == 0 for i, (_, must) in enumerate(head)]) for head in drawn
    ]
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


@given(heads, st.integers(1, 60), st.integers(0, 20))
def test_with_a_floor_no_head_keeps_fewer(drawn, total, floor):
    scores, forced = tensors(drawn)
    kept = by_budget(scores, with_floor(scores, forced, floor), total)
    for score, k in zip(scores, kept, strict=True):
        best = by_budget([score], [torch.zeros(len(score), dtype=torch.bool)], floor)[0]
        assert len(k) >= min(floor, len(score)) == len(best)


def test_a_floor_takes_from_the_richest_head():
    scores = [torch.arange(10.0) + 100, torch.arange(10.0)]
    forced = [torch.zeros(10, dtype=torch.bool)] * 2
    assert [len(k) for k in by_budget(scores, forced, 10)] == [10, 0]
    kept = by_budget(scores, with_floor(scores, forced, 2), 10)
    assert [k.tolist() for k in kept] == [[2, 3, 4, 5, 6, 7, 8, 9], [8, 9]]
    assert not forced[0].any()


def test_of_equal_scores_the_newer_stays():
    assert by_budget([torch.zeros(6)], [torch.zeros(6, dtype=torch.bool)], 2)[0].tolist() == [4, 5]


@given(heads, st.integers(1, 60))
def test_it_is_what_a_stable_sort_of_all_heads_gives(drawn, total):
    """Equal scores are many here, within a head and between heads; the later one stays."""
    scores, forced = tensors(drawn)
    ranked = [
        (bool(f), float(s)) for f, s in zip(torch.cat(forced), torch.cat(scores), strict=True)
    ]
    order = sorted(
        range(len(ranked)),
        key=lambda i: (ranked[i][0], 0.0 if ranked[i][0] else ranked[i][1], i),
        reverse=True,
    )
    wanted = sorted(order[: max(total, sum(must for must, _ in ranked))])
    starts = [sum(len(score) for score in scores[:head]) for head in range(len(scores))]
    kept = by_budget(scores, forced, total)
    assert [
        start + at for start, head in zip(starts, kept, strict=True) for at in head.tolist()
    ] == wanted


def test_infinite_scores_are_scores_and_what_is_no_number_goes_first():
    inf, nan = float("inf"), float("nan")
    scores, none = (
        [torch.tensor([nan, -inf, 3.0, inf, nan]), torch.tensor([nan, 1.0])],
        [torch.zeros(n, dtype=torch.bool) for n in (5, 2)],
    )
    assert [head.tolist() for head in by_budget(scores, none, 3)] == [[2, 3], [1]]
    none[0][4] = True
    assert [head.tolist() for head in by_budget(scores, none, 2)] == [[3, 4], []]


@given(heads)
def test_thresholds(drawn):
    scores, forced = tensors(drawn)
    own = by_threshold(scores, forced, 0.0)
    for kept, score, must in zip(own, scores, forced, strict=True):
        assert kept.tolist() == [i for i in range(len(score)) if score[i] >= 0 or must[i]]
    padded = by_padded_threshold(scores, forced, 0.0)
    count = max(len(kept) for kept in own)
    assert [len(kept) for kept in padded] == [min(count, len(score)) for score in scores]
