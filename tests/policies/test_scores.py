"""Each policy against its formula, written out on a dense attention matrix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from namm_llm.attention.observation import Observation
from namm_llm.policies import POLICIES, ScorePolicy
from namm_llm.tokens import HeadTokens

N, OLD, D, R = (
    90,
    40,
    8,
    2,
)  # stored tokens, of which 40 were there before the last eviction step; head size; query heads


@pytest.fixture
def observed():
    """A segment whose first 40 tokens are what an eviction left of 100, and the attention that 50
    new queries pay, `[50, 90]`.
    """
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(N, D, generator=generator)
    positions = torch.cat(
        [
            torch.arange(0, 100)[torch.randperm(100, generator=generator)[:OLD].sort().values],
            torch.arange(100, 150),
        ]
    )
    queries = torch.randn(R, N - OLD, D, generator=generator)
    logits = queries @ keys.T * D**-0.5
    logits = logits.masked_fill(positions[None] > torch.arange(100, 150)[:, None], -torch.inf)
    segment = HeadTokens(
        keys, torch.randn(N, D, generator=generator), positions.int(), torch.zeros(N, 1)
    )
    observation = Observation(
        queries,
        logits.logsumexp(-1),
        keys,
        segment.positions,
        D**-0.5,
        query_stop=150,
        new_start=100,
    )
    return segment, observation, logits.softmax(-1).mean(0)


def score(name: str, segment: HeadTokens, observation: Observation) -> torch.Tensor:
    policy = POLICIES[name]()
    if isinstance(policy, ScorePolicy):
        return policy.score(segment)
    state = policy.update_state(segment, observation)
    return policy.score(replace(segment, state=state), observation)


def expected(name: str, segment: HeadTokens, attention: torch.Tensor) -> torch.Tensor:
    if name == "h2o":
        return segment.state[:, 0] + attention.sum(0)
    if name == "tova":
        return attention[-1]
    if name == "snapkv":
        mean = attention[-32:].mean(0)
        return torch.stack([mean[max(0, i - 3) : i + 4].max() for i in range(N)])
    if name == "knorm":
        return -(segment.keys**2).sum(-1).sqrt()
    if name == "keydiff":
        unit = normalize(segment.keys, dim=-1)
        return -(unit @ normalize(unit.mean(0), dim=0))
    if name == "novelty":
        unit = normalize(segment.values, dim=-1)
        newer = [(unit[at + 1 :] @ unit[at]).max() for at in range(N - 1)]
        return -torch.stack([*newer, torch.tensor(-1.0)])
    assert name == "streaming_llm"
    return segment.positions.float()


@pytest.mark.parametrize(
    "name", ["h2o", "tova", "snapkv", "knorm", "keydiff", "novelty", "streaming_llm"]
)
def test_formula(name, observed):
    segment, observation, attention = observed
    torch.testing.assert_close(
        score(name, segment, observation), expected(name, segment, attention), atol=1e-5, rtol=1e-4
    )


def test_novelty_forgets_all_but_the_newest_of_what_comes_again(observed, monkeypatch):
    monkeypatch.setattr("namm_llm.namm.novelty._BLOCK", 37)  # more than one block, and an odd one
    segment = observed[0]
    scenes = torch.randn(5, D).repeat_interleave(N // 5, 0) * torch.rand(N, 1).add(0.5)
    scores = POLICIES["novelty"]().score(replace(segment, values=scenes))
    newest = torch.arange(N // 5 - 1, N, N // 5)
    assert scores.topk(5).indices.sort().values.tolist() == newest.tolist()


def test_h2o_adds_to_its_sum(observed):
    segment, observation, attention = observed
    before = torch.rand(N, 1)
    policy = POLICIES["h2o"]()
    state = policy.update_state(
        HeadTokens(segment.keys, segment.values, segment.positions, before), observation
    )
    torch.testing.assert_close(state[:, 0], before[:, 0] + attention.sum(0))


def test_random_depends_on_position_and_seed_alone(observed):
    segment = observed[0]
    first = POLICIES["random"]().score(segment)
    half = HeadTokens(
        segment.keys[::2], segment.values[::2], segment.positions[::2], segment.state[::2]
    )
    assert torch.equal(POLICIES["random"]().score(half), first[::2])
    assert len(first.unique()) == N
    assert not torch.equal(POLICIES["random"](seed=1).score(segment), first)
    spread = POLICIES["random"]().score(
        HeadTokens(segment.keys, segment.values, torch.arange(100_000).int(), segment.state)
    )
    assert abs(float(spread.mean()) / 2**31 - 1) < 0.01


def test_the_protected_defaults_are_the_papers():
    assert POLICIES["streaming_llm"]().sinks == 4
    assert POLICIES["h2o"]().protect_recent(100) == 50
    assert POLICIES["snapkv"]().protect_recent(1000) == 32
    assert POLICIES["snapkv"]().protect_recent(20) == 10
