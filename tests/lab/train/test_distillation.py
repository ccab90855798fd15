"""Labels, collection and learning, on a random model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from namm_lab.train import DistilSettings, TrainDocument, distil
from namm_lab.train.collection import FeatureSample, collect
from namm_lab.train.distillation import fit, initial
from namm_lab.train.families import FAMILIES, family
from namm_lab.train.target_attention import target_attention
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import UsageError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.policies import NammPolicy
from tests.architectures import random_ids, random_llama


@pytest.fixture(scope="module")
def llama():
    return random_llama(layers=2)


def document(length: int = 200, seed: int = 0) -> TrainDocument:
    return TrainDocument(
        random_ids(1, length, seed)[0].tolist(), random_ids(1, 150, seed + 1)[0].tolist()
    )


def test_labels_are_the_most_that_any_later_query_paid(llama):
    given = document()
    found = target_attention(llama, given)
    before = llama.config._attn_implementation
    llama.set_attn_implementation("eager")
    whole = llama(torch.tensor([given.document + given.queries]), output_attentions=True).attentions
    llama.set_attn_implementation(before)
    for layer, attention in enumerate(whole):
        paid = attention[0, :, 200:, :200].amax(1)
        expected = torch.stack([paid[:2].amax(0), paid[2:].amax(0)])
        torch.testing.assert_close(found[layer], expected, atol=1e-5, rtol=0)


def test_labels_do_not_depend_on_where_the_queries_are_cut(llama):
    """The repetition is longer than an interval."""
    given = TrainDocument(document().document, random_ids(1, 700, 5)[0].tolist())
    cut = TrainDocument(given.document, given.queries[:450])
    for whole, part in zip(
        target_attention(llama, given), target_attention(llama, cut), strict=True
    ):
        assert torch.all(whole >= part)
        assert not torch.equal(whole, part)


def test_ranking_tells_heads_apart_that_look_alike(llama):
    """Two heads of the same features, of which one is paid much more: each has a budget of its
    own.
    """
    state = torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
    ages = torch.arange(63, -1, -1)
    samples = [
        FeatureSample(state, ages, worth * state[:, 0], head)
        for head, worth in ((0, 1.0), (1, 0.1))
    ]
    form = Namm.zeros(0, NammSettings(Spectrogram(num_bins=0), Recency(0), replay=True, heads=2))
    settings = DistilSettings(steps=200, batch=2, loss="ranking")
    namm = fit(initial(form, samples, 0), samples, settings, random.Random(0), None)
    features = namm.features(state, ages)
    first, second = (namm.scores(features, torch.tensor(head)) for head in (0, 1))
    assert first.median() > second.max()
    with pytest.raises(UsageError, match="needed or ranking, not 'hinge'"):
        DistilSettings(loss="hinge")


def test_a_sample_is_one_head_at_one_eviction_step(llama):
    given, targets = document(), target_attention(llama, document())
    samples = collect(
        llama, given, targets, make_cache_config(NammPolicy(Namm.zeros()), interval=64)
    )
    assert [len(sample.ages) for sample in samples] == [64] * 4 + [128] * 4 + [192] * 4
    assert torch.equal(samples[-1].target, targets[1][1][:192])
    assert samples[-1].ages.tolist() == list(range(191, -1, -1))
    evicting = make_cache_config(NammPolicy(Namm.zeros()), budget=0.5, interval=64)
    assert [len(sample.ages) for sample in collect(llama, given, targets, evicting)] == [64] * 4 + [
        96
    ] * 4 + [128] * 4


def test_distilling_learns_and_is_repeatable(llama):
    documents, rows = [document(seed=seed) for seed in (0, 10)], []
    settings = DistilSettings(steps=200, rounds=1, interval=64, batch=4, rate=3e-3, enough=0.1)
    form = Namm.zeros(settings=NammSettings(replay=True))
    namm = distil(llama, documents, settings, rows.append, form)
    assert rows[1]["loss"] < 0.9 * rows[0]["loss"]
    assert namm == distil(llama, documents, settings, family=form)
    keeping = make_cache_config(NammPolicy(form), interval=64)
    states = torch.cat(
        [
            form.settings.scaled(s.state)
            for text in documents
            for s in collect(llama, text, target_attention(llama, text), keeping)
        ]
    )
    torch.testing.assert_close(namm.mean, states.mean(0), atol=1e-5, rtol=1e-4)


def test_a_namm_with_query_replay_begins_with_it_as_its_score(llama):
    """Before the first step it ranks tokens as the policy `replay` does."""
    given = document()
    namm = distil(llama, [given], DistilSettings(steps=0, rounds=1, interval=64))
    for sample in collect(
        llama,
        given,
        target_attention(llama, given),
        make_cache_config(NammPolicy(namm), interval=64),
    ):
        scores = namm.scores(namm.features(sample.state, sample.ages))
        assert torch.equal(scores.argsort(stable=True), sample.state[:, 0].argsort(stable=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_learnt_and_evicts(llama, name):
    """Two rounds, so that it learns from its own evictions too."""
    form = family(name)
    settings = DistilSettings(
        steps=20, rounds=2, interval=64, batch=4, budget=0.3, rate=1e-3, enough=0.1
    )
    namm = distil(llama, [document()], settings, family=form)
    heads = 4 if form.settings.heads else 0
    assert namm.settings == replace(form.settings, heads=heads)
    cache = ManagedCache.for_model(llama, settings.config(namm))
    for piece in torch.split(random_ids(1, 192), 64, 1):
        llama(piece, past_key_values=cache)
    assert cache.stats().kept_fraction == pytest.approx(0.3, abs=0.01)
