"""Calibrating changes the statistics alone, to those of the model that read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_lab.train.calibration import calibrate, zeroed
from namm_lab.train.families import DEFAULT, FAMILIES
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import UsageError
from namm_llm.namm import Namm
from tests.architectures import random_ids, random_llama
from tests.cache.test_eviction import random_namm

DOCUMENTS = [random_ids(1, length, seed)[0].tolist() for seed, length in enumerate((200, 150))]


def features_of(llama, namm: Namm) -> torch.Tensor:
    """The standardised state of every token at every eviction step, with nothing evicted."""
    seen = []
    config = make_cache_config("namm", namm=zeroed(namm), interval=50)
    for document in DOCUMENTS:
        cache = ManagedCache.for_model(llama, config)
        cache.on_eviction = lambda event: seen.extend(head.state for head in event.heads)
        llama(torch.tensor([document]), past_key_values=cache)
    return (namm.settings.scaled(torch.cat(seen)) - namm.mean) / namm.variance.sqrt().clamp_min(
        1e-7
    )


@pytest.mark.parametrize("family", [random_namm(), FAMILIES[DEFAULT]], ids=["published", "default"])
def test_features_have_mean_0_and_variance_1(family):
    llama = random_llama(layers=2)
    namm = calibrate(llama, family, DOCUMENTS, interval=50)
    assert torch.equal(namm.theta, family.theta)
    assert namm == replace(family, mean=namm.mean, variance=namm.variance)
    features = features_of(llama, namm).double()
    assert len(features) == 2 * 2 * (
        50 + 100 + 150 + 200 + 50 + 100 + 150
    )  # layers x KV heads x tokens at every update
    varying = namm.variance > 1e-10
    assert varying.any()
    torch.testing.assert_close(
        features.mean(0)[varying], torch.zeros(int(varying.sum())).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        features.var(0, correction=0)[varying],
        torch.ones(int(varying.sum())).double(),
        atol=1e-3,
        rtol=0,
    )


def test_another_model_has_other_statistics():
    one, other = (
        calibrate(random_llama(layers=2, heads=heads), Namm.zeros(), DOCUMENTS, interval=50)
        for heads in (4, 8)
    )
    assert not torch.allclose(one.mean, other.mean, rtol=0.01)
    assert (
        calibrate(random_llama(layers=2), one, DOCUMENTS, interval=50) == one
    )  # what it had before does not matter


@pytest.mark.parametrize("documents", [[], [[1] * 49]], ids=["none", "short"])
def test_texts_that_are_too_short(documents):
    with pytest.raises(
        UsageError,
        match=rf"at least 50 tokens \(one interval\), the longest has {49 * len(documents)}",
    ):
        calibrate(random_llama(layers=1), Namm.zeros(), documents, interval=50)
