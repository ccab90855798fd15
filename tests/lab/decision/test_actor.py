"""A Decision Transformer in the managed cache, against its own `forward` over the whole past."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot
from transformers import DecisionTransformerModel

from namm_lab.decision.actor import Actor, usable_policies
from namm_lab.decision.environments import TMAZE
from namm_lab.decision.training import Recipe, new_model
from namm_lab.train.families import FAMILIES
from namm_llm import CacheConfig, PolicyError, make_cache_config
from namm_llm.namm.novelty import repeated

BATCH, STEPS = 3, 17


@pytest.fixture(scope="module")
def model() -> DecisionTransformerModel:
    """Weights so large that attention is not flat."""
    made = new_model(TMAZE, Recipe(0, 0)).eval()
    with torch.no_grad():
        for weight in made.encoder.parameters():
            weight.mul_(4.0 if weight.ndim > 1 else 1.0)
    return made


def episode():
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(BATCH, STEPS, TMAZE.states, generator=generator)
    actions = torch.randint(TMAZE.actions, (BATCH, STEPS), generator=generator)
    returns = torch.randn(BATCH, STEPS, 1, generator=generator)
    return states, one_hot(actions, TMAZE.actions).float(), returns


def acted(model, config: CacheConfig | None, rows=range(BATCH)):
    """Predictions `[B, T, A]` of these rows of the episode, step by step."""
    states, actions, returns = (part[list(rows)] for part in episode())
    actor, found = Actor(model, config), []
    for step in range(STEPS):
        found.append(actor.act(states[:, step], returns[:, step, 0]))
        actor.observe(actions[:, step])
    return actor, torch.stack(found, 1)


@torch.no_grad()
def whole(model):
    states, actions, returns = episode()
    times = torch.arange(STEPS).expand(BATCH, -1)
    given = {"states": states, "actions": actions, "returns_to_go": returns, "timesteps": times}
    return model(**given).action_preds


@pytest.mark.parametrize("interval", [7, 12])
@pytest.mark.parametrize("scope", ["head", "model"])
def test_the_full_cache_acts_as_forward_over_the_whole_past(model, interval, scope):
    config = make_cache_config("full", interval=interval, budget_scope=scope)
    _, found = acted(model, config)
    assert (found - whole(model)).abs().max() < 1e-5


def test_a_budget_of_everything_changes_nothing_and_a_small_one_does(model):
    expected = whole(model)
    _, kept = acted(model, make_cache_config("h2o", budget=3 * STEPS, interval=6))
    _, evicted = acted(model, make_cache_config("h2o", budget=4, interval=6))
    assert (kept - expected).abs().max() < 1e-5
    assert (evicted - expected).abs().max() > 1e-2


@pytest.mark.parametrize("policy", [*usable_policies(), "universal", "published"])
def test_each_usable_policy_acts_within_its_budget_in_a_batch_as_alone(model, policy):
    budget = None if policy == "full" else 6
    namm = FAMILIES.get(policy)
    config = make_cache_config(
        "namm" if namm else policy, namm=namm, budget=budget, interval=6, budget_scope="model"
    )
    actor, found = acted(model, config)
    alone, single = acted(model, config, [1])
    if budget:
        # three tokens a step, the last one's action not read yet: so many since the last step
        heads = torch.tensor(actor.cache.kept_tokens(), dtype=torch.float).mean((0, 2))
        assert heads.tolist() == [budget + (3 * STEPS - 1) % 6] * BATCH
    if policy != "random":
        assert torch.allclose(found[1:2], single, atol=1e-4)
    assert alone.cache.seen_tokens() == [3 * STEPS - 1]


@pytest.mark.parametrize("policy", ["replay", "kvzip", "expected_attention"])
def test_policies_that_need_rope_are_refused_and_others_named(model, policy):
    with pytest.raises(PolicyError, match=r"has not; choose one of full, streaming_llm, h2o, "):
        Actor(model, make_cache_config(policy, budget=6))


def test_the_default_namm_is_refused_too(model):
    with pytest.raises(PolicyError, match=r"a NAMM of the family universal"):
        Actor(model, make_cache_config("namm", namm=FAMILIES["neighbours"], budget=6))


def test_environments_that_are_kept_go_on_as_before(model):
    states, actions, returns = episode()
    config = make_cache_config("h2o", budget=6, interval=6)
    _, expected = acted(model, config)
    actor, rows = Actor(model, config), [0, 1, 2]
    for step in range(STEPS):
        if step == 9:
            rows = [2, 0]
            actor.keep(rows)
        found = actor.act(states[rows, step], returns[rows, step, 0])
        assert torch.allclose(found, expected[rows, step], atol=1e-4)
        actor.observe(actions[rows, step])


def test_a_universal_namm_remembers_how_like_newer_keys_and_values_are(model):
    config = make_cache_config("namm", namm=FAMILIES["universal"], budget=9, interval=9)
    actor, noted = Actor(model, config), []
    actor.cache.on_eviction = noted.append
    for state in torch.randn(4, 1, TMAZE.states, generator=torch.Generator().manual_seed(0)):
        actor.act(state, torch.ones(1))
        actor.observe(torch.eye(TMAZE.actions)[:1])
    for head in noted[0].heads:
        found = torch.stack([repeated(head.keys), repeated(head.values)], 1)
        assert torch.allclose(head.state[:, -2:].float(), found, atol=1e-3)
