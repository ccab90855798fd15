"""The policy that keeps the tokens which the text itself would look for."""

from __future__ import annotations

import pytest
import torch

from namm_llm.attention import observation
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.policies import NammPolicy
from namm_llm.policies.replay import QueryReplay
from tests.architectures import random_ids, random_llama


def states(model, ids: torch.Tensor, **settings) -> list[torch.Tensor]:
    """The state columns of every layer after reading in pieces of 64 tokens."""
    cache = ManagedCache.for_model(model, **settings)
    for piece in ids.split(64, 1):
        model(piece, past_key_values=cache)
    return [layer.sequences[0].retained.state for layer in cache.managed]


def test_attention_once_seen_is_never_forgotten():
    model, ids = random_llama(layers=2), random_ids(1, 192, 0)
    before = states(model, ids[:, :128], policy="replay", budget=1.0, interval=64)
    after = states(model, ids, policy="replay", budget=1.0, interval=64)
    for short, long in zip(before, after, strict=True):
        heads = zip(short.view(2, 128, 1), long.view(2, 192, 1), strict=True)
        for early, late in heads:
            assert (late[:128] >= early).all()
            assert (late > 0).all()


@pytest.mark.parametrize(
    ("products", "off"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)], ids=str
)
def test_in_the_first_layer_it_is_what_a_real_second_reading_pays_to_the_first(
    monkeypatch, products, off
):
    """The text twice through the model: the second time's attention to the first, without what it
    pays to itself.
    """
    monkeypatch.setattr(observation, "_replay_dtype", lambda device: products)
    model, ids = random_llama(layers=1), random_ids(1, 64, 3)
    found = states(model, ids, policy="replay", budget=1.0, interval=64)[0]
    model.set_attn_implementation("eager")
    attention = model(torch.cat([ids, ids], 1), output_attentions=True).attentions[0][
        0, :, 64:, :64
    ]
    heads = (attention / attention.sum(-1, keepdim=True)).reshape(2, -1, 64, 64)
    torch.testing.assert_close(found.float().view(2, 64), heads.amax((1, 2)), atol=1e-3, rtol=off)


def test_a_namm_with_that_memory_sees_the_same_numbers():
    model, ids = random_llama(layers=2), random_ids(1, 192, 1)
    namm = Namm.zeros(settings=NammSettings(Spectrogram(num_bins=0), replay=True))
    plain = states(model, ids, policy=QueryReplay(), budget=1.0, interval=64)
    learnt = states(model, ids, policy=NammPolicy(namm), interval=64)
    for a, b in zip(plain, learnt, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("policy", "chunked", "expected"),
    [("replay", True, "model"), ("replay", False, "head"), ("keydiff", True, "head")],
)
def test_who_competes_by_default(policy, chunked, expected):
    assert make_cache_config(policy, budget=0.25, chunked=chunked).budget_scope == expected


def oldest_first() -> Namm:
    """Scores that fall with the replayed attention, so that needed tokens go first."""
    settings = NammSettings(Spectrogram(num_bins=0), Recency(0), replay=True)
    return Namm.from_vector([-1.0, 0.0], [0.0], [1.0], settings)


@pytest.mark.parametrize(
    "policy", [QueryReplay(), NammPolicy(oldest_first())], ids=["replay", "namm"]
)
@pytest.mark.parametrize(("budget", "newest"), [(0.5, 16), (0.25, 8), (1024, 64)])
def test_a_question_that_has_just_begun_is_not_forgotten(policy, budget, newest):
    """At an eviction step the newest tokens stay, up to an eighth of the budget and 64."""
    model, length = random_llama(layers=2), 1088 if budget == 1024 else 256
    cache = ManagedCache.for_model(model, policy=policy, budget=budget, interval=length // 2)
    for piece in random_ids(1, length, 2).split(length // 2, 1):
        model(piece, past_key_values=cache)
    wanted = torch.arange(length - newest, length)
    for layer in cache.managed:
        for segment in layer.sequences[0].retained.heads():
            assert torch.isin(wanted, segment.positions).all()
            assert len(segment) < length


def test_a_namm_without_a_spectrogram_carries_one_hop_of_queries():
    published = NammSettings()
    replaying = NammSettings(spectrogram=Spectrogram(num_bins=0), replay=True)
    for seen in (160, 166, 175):
        for settings, count in ((published, 16 + seen % 16), (replaying, 16)):
            assert NammPolicy(Namm.zeros(0, settings)).num_carried_queries(seen) == count
