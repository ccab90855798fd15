"""A NAMM that is learnt on several domains: labels, likelihoods, and what comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_lab.decision.environments import TMAZE
from namm_lab.decision.episodes import Batch
from namm_lab.decision.table import contenders
from namm_lab.decision.training import Recipe as Actors
from namm_lab.decision.training import new_model
from namm_lab.train.families import FAMILIES
from namm_lab.universal.learning import Recipe, config_of, distil_on, evolve_on, shares
from namm_lab.universal.mazes import MazeDomain
from namm_lab.universal.shipped import SHIPPED
from namm_llm import Namm

FORM = FAMILIES["universal"]
RECIPE = Recipe(
    documents=2, steps=3, generations=1, population=4, judged=1, validation=1, validate_every=1
)


def domain(task=TMAZE) -> MazeDomain:
    model = new_model(task, Actors(0, 0, hidden=32)).eval()
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.mul_(4.0 if weight.ndim > 1 else 1.0)
    return MazeDomain(model, task)


def drawn(seed: int) -> Namm:
    generator = torch.Generator().manual_seed(seed)
    return replace(FORM, theta=torch.randn(FORM.theta.shape, generator=generator))


def test_labels_are_the_attention_that_the_junction_pays():
    """From transformers' own attention matrices."""
    mazes = domain()
    found = mazes.samples(config_of(FORM, mazes, None), seed=0, count=1)
    (episode,) = mazes._episodes(0, 1)
    batch = Batch.of([episode], TMAZE)
    mazes._model.set_attn_implementation("eager")
    with torch.no_grad():
        paid = mazes._model.encoder(
            inputs_embeds=mazes._sequences(batch).embeds,
            position_ids=torch.zeros(1, 3 * len(episode), dtype=torch.long),
            output_attentions=True,
        ).attentions
    junction = 3 * (len(episode) - 1)
    heads = paid[0].shape[1]
    assert len(found) == (junction // mazes.interval) * len(paid) * heads
    for sample in found:
        layer, head = divmod(sample.head, heads)
        tokens = int(sample.ages[0]) + 1
        expected = paid[layer][0, head, junction:, :tokens].amax(0)
        assert torch.allclose(sample.target, expected, atol=1e-5)


def test_candidates_side_by_side_are_as_each_alone():
    mazes = domain()
    configs = [
        config_of(None, mazes, None),
        *(config_of(drawn(seed), mazes, 0.25) for seed in (1, 2)),
    ]
    together = mazes.likelihoods(configs, seed=3, count=1)
    alone = [mazes.likelihoods([config], seed=3, count=1) for config in configs]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
    assert len(set(together.tolist())) == 3
    assert ((together > 0) & (together < 1)).all()


def test_it_is_distilled_then_evolved_and_never_worse_on_validation():
    mazes, rows = domain(), []
    start = distil_on([mazes], FORM, RECIPE, lambda row: None)
    assert start.settings == FORM.settings
    assert start.theta.any()
    found = evolve_on([mazes], start, RECIPE, rows.append)
    assert [row["generation"] for row in rows] == [0, 1]
    assert rows[-1]["best"] >= rows[0]["tmaze"]
    again = shares([mazes], start, [found.vector.numpy()], RECIPE, 10**6, RECIPE.validation)
    assert float(again) == pytest.approx(rows[-1]["best"], abs=1e-6)
    assert evolve_on([mazes], start, RECIPE, lambda row: None) == found


def test_the_shipped_one_is_of_the_family_and_can_be_played_with():
    (found,) = contenders(list(SHIPPED), [])
    assert found.label == "NAMM zero-shot"
    assert found.namm is not None
    assert found.namm.settings == FORM.settings
    assert found.namm.theta.any()
