"""What an evicting cache tells of its eviction steps: events, and seconds of each stage."""

from __future__ import annotations

import itertools

import pytest
import torch

from namm_llm.cache import EvictionEvent, ManagedCache, Stopwatch
from namm_llm.cache.update import STAGES
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.policies import NammPolicy
from tests import dense
from tests.architectures import random_ids

LAYERS, HEADS = 3, 2


def ticking(step: int = 1):
    """A clock that goes on by `step` seconds each time it is read."""
    count = itertools.count(0, step)
    return lambda: float(next(count))


@pytest.mark.parametrize("budget_scope", ["head", "layer", "model"])
def test_events_tell_which_tokens_stay(llama, budget_scope):
    events: list[EvictionEvent] = []
    cache = ManagedCache.for_model(
        llama, "replay", budget=0.25, interval=64, budget_scope=budget_scope
    )
    cache.on_eviction = events.append
    for piece in random_ids(2, 128).split(64, 1):
        llama(piece, past_key_values=cache)
    steps = {(event.seen, event.layer, event.row) for event in events}
    assert steps == set(itertools.product((64, 128), range(LAYERS), range(2)))
    assert len(events) == len(steps)
    stored = dense.stored_positions(cache)
    for event in events[-2 * LAYERS :]:
        for head, (tokens, scores, kept) in enumerate(
            zip(event.heads, event.scores, event.kept, strict=True)
        ):
            assert scores.shape == (len(tokens),)
            assert tokens.state.shape == (len(tokens), 1)
            positions = tokens.positions if kept is None else tokens.positions[kept]
            held = stored[event.layer][event.row, head].nonzero()[:, 0]
            assert torch.equal(positions.long(), held)


def test_a_fork_tells_nobody(llama):
    events: list[EvictionEvent] = []
    cache = ManagedCache.for_model(llama, "knorm", budget=0.25, interval=64)
    cache.on_eviction = events.append
    llama(random_ids(1, 60), past_key_values=cache)
    llama(random_ids(1, 60), past_key_values=cache.fork())
    assert not events


def test_every_stage_is_timed(llama):
    cache = ManagedCache.for_model(llama, "replay", budget=0.25, interval=64)
    cache.stopwatch = Stopwatch(ticking())
    llama(random_ids(1, 128), past_key_values=cache)
    assert tuple(cache.stopwatch.seconds) == STAGES
    assert all(cache.stopwatch.seconds.values())
    assert cache.stopwatch.seconds["observe"] == 2 * LAYERS * HEADS


def test_heads_that_are_scored_together_are_one_score(llama):
    settings = NammSettings(
        Spectrogram(num_bins=0), Recency(0), replay=True, neighbour_radius=2, mlp_hidden=3
    )
    cache = ManagedCache.for_model(
        llama, NammPolicy(Namm.zeros(0, settings)), budget=0.25, interval=64
    )
    cache.stopwatch = Stopwatch(ticking())
    llama(random_ids(1, 128), past_key_values=cache)
    assert cache.stopwatch.seconds["score"] == 2 * LAYERS


def test_a_stage_that_fails_is_counted_and_the_error_goes_on():
    stopwatch = Stopwatch(ticking())
    with pytest.raises(KeyError), stopwatch.stage("select"):
        raise KeyError("x")
    assert stopwatch.seconds["select"] == 1.0
