"""Where an update's time goes, for whoever measures."""

from __future__ import annotations

import itertools

import pytest

from namm_llm.cache import ManagedCache
from namm_llm.cache.timing import STAGES, measured, stage
from namm_llm.namm import Memory, Namm, Recency, Spectrogram
from namm_llm.policies import NammPolicy
from tests.architectures import random_ids


def ticking(step: int = 1):
    """A clock that goes on by `step` seconds each time it is read."""
    count = itertools.count(0, step)
    return lambda: float(next(count))


def test_every_stage_is_counted_once_per_layer_or_head(llama):
    cache = ManagedCache.for_model(llama, policy="replay", budget=0.25, interval=64)
    with measured(ticking()) as totals:
        llama(random_ids(1, 128), past_key_values=cache)
    updates, layers, heads = 2, 3, 2
    assert totals == {
        "probe": 0,
        "observe": updates * layers * heads,
        "score": updates * layers * heads,
        "select": updates * layers,
        "compact": 2 * updates * layers,
    }


def test_heads_that_are_scored_together_are_one_score(llama):
    namm = Namm.zeros(
        0,
        spectrogram=Spectrogram(lowest=0),
        recency=Recency(0),
        memory=Memory(replay=True, reach=2),
        units=3,
    )
    cache = ManagedCache.for_model(llama, policy=NammPolicy(namm), budget=0.25, interval=64)
    with measured(ticking()) as totals:
        llama(random_ids(1, 128), past_key_values=cache)
    updates, layers, heads = 2, 3, 2
    assert (totals["observe"], totals["score"]) == (updates * layers * heads, updates * layers)


def test_nothing_is_counted_outside_and_blocks_may_overlap():
    with measured(ticking()) as outer:
        with measured(ticking(10)) as inner, stage("score"):
            pass
        with stage("score"):
            pass
    with stage("score"):
        pass
    assert (outer["score"], inner["score"]) == (2.0, 10.0)
    assert tuple(outer) == STAGES


def test_a_stage_that_fails_is_counted_and_the_error_goes_on():
    with measured(ticking()) as totals:
        with pytest.raises(KeyError), stage("select"):
            raise KeyError("x")
        assert totals["select"] == 1.0
