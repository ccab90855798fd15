"""A NAMM that scores all heads of a layer in one call gives each head what it gets alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from namm_llm.attention.observation import Observation
from namm_llm.cache import ManagedCache
from namm_llm.errors import NammFileError, PolicyError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.policies import NammPolicy
from namm_llm.policies import namm as module
from namm_llm.tokens import HeadTokens
from tests.architectures import random_ids, random_llama
from tests.cache.test_no_eviction import left_padded

STOP = 100


@dataclass(frozen=True)
class OneByOne(NammPolicy):
    """The same, head by head."""

    @property
    def scores_layer_at_once(self) -> bool:
        return False


def without_attention(num_bins: int = 0, recency: int = 0, radius: int = 3, heads: int = 0) -> Namm:
    settings = NammSettings(
        Spectrogram(num_bins=num_bins),
        Recency(recency),
        replay=True,
        neighbour_radius=radius,
        mlp_hidden=4,
        norms=heads > 0,
        heads=heads,
    )
    zeros = Namm.zeros(0, settings)
    theta = torch.randn(len(zeros.theta), generator=torch.Generator().manual_seed(1))
    return Namm.from_vector(theta, zeros.mean - 4.0, 9.0 * zeros.variance, settings)


def segment(tokens: int, width: int) -> tuple[HeadTokens, Observation]:
    """The scores need no keys: these are NaN."""
    generator = torch.Generator().manual_seed(tokens)
    positions = torch.randperm(STOP, generator=generator)[:tokens].sort().values.int()
    keys = torch.full((tokens, 8), torch.nan)
    state = torch.rand(tokens, width, generator=generator).pow(4).half()
    return HeadTokens(keys, keys, positions, state), Observation(
        keys[None], keys[None, :, 0], keys, positions, 1.0, query_stop=STOP, new_start=0
    )


@pytest.mark.parametrize("lengths", [(40,), (30, 1, 77), (0, 12), (5, 0), (0, 0)])
@pytest.mark.parametrize("piece", [1, 16, 8192])
@pytest.mark.parametrize(("num_bins", "recency"), [(0, 0), (2, 4)])
def test_together_is_one_by_one(lengths, piece, num_bins, recency, monkeypatch):
    monkeypatch.setattr(module, "_TOGETHER", piece)
    policy = NammPolicy(without_attention(num_bins, recency))
    heads = [segment(tokens, policy.state_width) for tokens in lengths]
    found = policy.score_layer([shown for shown, _ in heads], STOP, 0)
    for together, (shown, observation) in zip(found, heads, strict=True):
        assert together.shape == (len(shown),)
        torch.testing.assert_close(together, policy.score(shown, observation), atol=1e-5, rtol=1e-5)


def test_heads_of_their_own_change_the_scores_of_these_heads():
    policy = NammPolicy(without_attention(heads=6))
    heads = [segment(tokens, policy.state_width)[0] for tokens in (30, 0, 77)]
    parts = policy.namm.weights(policy.namm.theta)
    for part in parts.heads:
        part.zero_()
    plain = policy.score_layer(heads, STOP, 1)
    parts.heads[0][5], parts.heads[1][3] = 1.0, 10.0
    first, _, last = policy.score_layer(heads, STOP, 1)
    torch.testing.assert_close(first, plain[0] + 10.0)
    torch.testing.assert_close(last, 2.0 * plain[2])
    for found, expected in zip(policy.score_layer(heads, STOP, 0), plain, strict=True):
        assert torch.equal(found, expected)


def test_a_head_of_low_scores_keeps_its_part_of_an_equal_share():
    namm, model = without_attention(heads=4), random_llama(layers=2)
    summands = namm.weights(namm.theta).heads[1]
    summands += torch.tensor([0.0, 0.0, 0.0, -1e6])
    cache = ManagedCache.for_model(
        model, NammPolicy(namm), budget=0.5, interval=64, budget_scope="model", protect_recent=4
    )
    for piece in torch.split(random_ids(1, 256), 64, 1):
        model(piece, past_key_values=cache)
    (first, second) = (layer[0] for layer in cache.kept_tokens())
    assert second[1] == 32  # a quarter of 128
    assert sum(first) + sum(second) == 4 * 128


def test_a_namm_of_other_heads_is_refused():
    with pytest.raises(PolicyError, match=r"models of 6 KV heads .* 2 layers of 2"):
        ManagedCache.for_model(random_llama(layers=2), NammPolicy(without_attention(heads=6)))


def test_attention_between_tokens_stays_within_its_head():
    assert not NammPolicy(Namm.zeros()).scores_layer_at_once
    with pytest.raises(NammFileError, match="without attention only"):
        Namm.zeros(8, NammSettings(replay=True, heads=4))
    assert NammPolicy(without_attention()).scores_layer_at_once


@pytest.mark.parametrize(
    "settings", [{}, {"kv_bits": 8}, {"budget_scope": "layer"}, {"budget_scope": "head"}], ids=str
)
def test_a_cache_keeps_the_same_tokens(settings):
    """Two texts of unequal length; heads soon hold unequally many tokens."""
    model, namm = random_llama(layers=2), without_attention()
    ids, mask = left_padded(2, 224)
    settings = {"budget_scope": "layer", "budget": 0.3, "interval": 32, **settings}
    kept = []
    for policy in (NammPolicy(namm), OneByOne(namm)):
        cache = ManagedCache.for_model(model, policy=policy, **settings)
        for at in range(0, 224, 32):
            model(ids[:, at : at + 32], attention_mask=mask[:, : at + 32], past_key_values=cache)
        rows = [sequence.retained for layer in cache.managed for sequence in layer.sequences]
        kept.append((cache.kept_tokens(), [retained.positions for retained in rows]))
    (together, positions), (single, alone) = kept
    assert together == single
    assert (
        len({count for layer in together for row in layer for count in row}) > 2
        or settings["budget_scope"] == "head"
    )
    assert all(torch.equal(a, b) for a, b in zip(positions, alone, strict=True))


class Waits(TorchDispatchMode):
    """Operations that make the host wait for a GPU: a number of the device is asked for, or a shape
    depends on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("num_bins", "recency"), [(0, 0), (2, 4)])
def test_scoring_never_waits_for_the_device(num_bins, recency):
    policy = NammPolicy(without_attention(num_bins, recency))
    heads = [segment(tokens, policy.state_width) for tokens in (30, 1, 77)]
    with Waits() as waits:
        policy.score_layer([shown for shown, _ in heads], STOP, 0)
        for head in heads:
            policy.score(*head)
    assert not waits.found
