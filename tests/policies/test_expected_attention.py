"""Expected Attention against its authors' definition, written out with the model's own RoPE."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from namm_llm.cache import ManagedCache
from namm_llm.errors import PolicyError
from namm_llm.policies.expected_attention import ExpectedAttention
from namm_llm.tokens import HeadTokens
from tests.architectures import random_ids, random_llama

LENGTH, SINKS, HORIZON = 96, 4, 512


def rotation_matrix(model, position: int, size: int) -> torch.Tensor:
    """RoPE at a position as a matrix `[D, D]`, from the model's own cosines and sines."""
    cos, sin = model.model.rotary_emb(torch.zeros(1, 1, size), torch.tensor([[position]]))
    half, identity = size // 2, torch.eye(size)
    turned = torch.cat([-identity[half:], identity[:half]])
    return cos[0, 0][:, None] * identity + sin[0, 0][:, None] * turned


def defined(model, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Scores `[G, N]` of all tokens but the sinks, as in section 3 of the paper, in float64."""
    caught = {}
    attention = model.model.layers[layer].self_attn
    hook = attention.q_proj.register_forward_hook(lambda *args: caught.update(q=args[2]))
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache)
    hook.remove()
    keys, values = cache.layers[layer].keys[0].double(), cache.layers[layer].values[0].double()
    groups, length, size = keys.shape
    queries = caught["q"][0].view(length, -1, size).transpose(0, 1)[:, SINKS:].double()
    future = range(length, length + HORIZON)
    turn = sum(rotation_matrix(model, at, size).double() for at in future) / HORIZON
    scores = []
    for head, rows in enumerate(queries.chunk(groups)):
        key, value = keys[head, SINKS:], values[head, SINKS:]
        attentions = []
        for query in rows:
            mean = turn @ query.mean(0)
            spread = turn @ torch.cov(query.T, correction=0) @ turn.T
            logits = key @ mean / size**0.5
            logits += torch.einsum("nd,de,ne->n", key, spread, key) / (2 * size)
            attentions.append(logits.softmax(-1))
        scores.append(torch.stack(attentions).mean(0) * value.norm(dim=-1))
    return torch.stack(scores)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1])
def test_it_is_the_papers_definition(layer):
    model, ids = random_llama(layers=2), random_ids(1, LENGTH, 5)
    cache = ManagedCache.for_model(
        model, ExpectedAttention(horizon=HORIZON), budget=1.0, interval=LENGTH
    )
    events = []
    cache.on_eviction = events.append
    model(ids, past_key_values=cache)
    found = torch.stack(list(events[layer].scores))
    wanted = defined(model, ids, layer).float()
    torch.testing.assert_close(found[:, SINKS:], wanted, rtol=2e-3, atol=1e-6)
    assert torch.equal(found[:, :SINKS], found.amax(1, keepdim=True).expand(-1, SINKS))


def test_later_steps_go_by_later_queries():
    """Where a step has few queries of its own, some before it count too."""
    model, ids = random_llama(layers=1), random_ids(1, LENGTH + 8, 6)
    kept = {}
    for window in (0, 64):
        cache = ManagedCache.for_model(
            model, ExpectedAttention(window=window), budget=0.3, interval=LENGTH
        )
        with torch.no_grad():
            model(ids, past_key_values=cache)
            assert cache.managed[0].sequences[0].queries.count == window + 8
            cache.evict()
        kept[window] = [each.positions for each in cache.managed[0].sequences[0].retained.heads()]
    assert not all(torch.equal(a, b) for a, b in zip(*kept.values(), strict=True))


def test_a_long_value_counts_for_more():
    model, ids = random_llama(layers=1), random_ids(1, 64, 7)
    cache = ManagedCache.for_model(model, ExpectedAttention(), budget=1.0, interval=64)
    seen = []
    cache.on_eviction = seen.append
    with torch.no_grad():
        model(ids, past_key_values=cache)
    (event,) = seen
    lengths = event.heads[0].values.float().norm(dim=-1)
    attention = event.scores[0] / lengths
    torch.testing.assert_close(attention[SINKS:].sum(), torch.tensor(1.0))
    assert isinstance(event.heads[0], HeadTokens)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"horizon": 0}, "horizon must be a whole number of at least 1, not 0"),
        ({"window": -1}, "window must be a whole number of at least 0, not -1"),
        ({"epsilon": -0.1}, "epsilon must be a number from 0 on, not -0.1"),
    ],
)
def test_settings_without_a_meaning(setting, message):
    with pytest.raises(PolicyError, match=message):
        ExpectedAttention(**setting)
