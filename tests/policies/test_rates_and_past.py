"""Several averages of the spectrogram, and a token's own past scores, against slow definitions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from namm_llm.cache import ManagedCache
from namm_llm.errors import NammFileError
from namm_llm.namm import Memory, Namm, Spectrogram
from namm_llm.policies import NammPolicy, make_cache_config
from tests.architectures import random_ids, random_llama

INTERVAL = 48


def random_namm(hidden: int = 0, seed: int = 0, **form) -> Namm:
    zeros = Namm.zeros(hidden, **form)
    return replace(
        zeros,
        theta=0.3 * torch.randn(len(zeros.theta), generator=torch.Generator().manual_seed(seed)),
    )


@dataclass(frozen=True)
class Noting(NammPolicy):
    """Notes the scores that it gives, by position, one entry for each KV head of each layer at each
    update.
    """

    noted: list[tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=list, compare=False, repr=False
    )

    @property
    def scores_layer_at_once(self) -> bool:
        return False

    def score(self, segment, observation):
        scores = super().score(segment, observation)
        self.noted.append((segment.positions.clone(), scores.clone()))
        return scores


def read(model, eviction, length: int = 5 * INTERVAL, chunk: int = INTERVAL) -> ManagedCache:
    cache = ManagedCache.for_model(model, eviction)
    for piece in torch.split(random_ids(1, length), chunk, 1):
        model(piece, past_key_values=cache)
    return cache


def test_every_rate_is_the_average_that_it_would_be_alone():
    model, rates = random_llama(layers=2), (0.9, 0.99, 0.999)
    both = read(
        model,
        make_cache_config(
            NammPolicy(
                Namm.zeros(0, spectrogram=Spectrogram(decay=0.9, further=rates[1:])), exact=True
            )
        ),
        200,
        512,
    )
    for index, rate in enumerate(rates):
        alone = read(
            model,
            make_cache_config(
                NammPolicy(Namm.zeros(0, spectrogram=Spectrogram(decay=rate)), exact=True)
            ),
            200,
            512,
        )
        both.settle(), alone.settle()
        for wide, narrow in zip(both.managed, alone.managed, strict=True):
            state = wide.sequences[0].retained.state[:, 17 * index : 17 * (index + 1)]
            torch.testing.assert_close(state, narrow.sequences[0].retained.state)


def test_every_rate_costs_its_state():
    model = random_llama(layers=2)
    one, three = (
        read(
            model,
            make_cache_config(
                NammPolicy(random_namm(spectrogram=Spectrogram(further=further))),
                budget=50,
                interval=INTERVAL,
            ),
        )
        for further in ((), (0.999, 0.9999))
    )
    assert three.eviction.state_nbytes() == 3 * one.eviction.state_nbytes() == 3 * 17 * 2
    assert (
        three.nbytes - one.nbytes == 2 * 17 * 2 * 50 * 2 * 2
    )  # two more averages of 50 tokens, two layers, two heads


@pytest.mark.parametrize("hidden", [0, 8])
def test_past_scores_are_a_moving_average_of_what_was_scored(hidden):
    namm = random_namm(hidden, memory=Memory(past=0.75))
    policy = Noting(namm, exact=True)
    cache = read(random_llama(layers=2), make_cache_config(policy, budget=40, interval=INTERVAL))
    heads = [(layer, head) for layer in range(2) for head in range(2)]
    for number, (layer, head) in enumerate(heads):
        average: dict[int, float] = {}
        for positions, scores in policy.noted[number :: len(heads)]:
            for position, score in zip(positions.tolist(), scores.tolist(), strict=True):
                average[position] = 0.75 * average.get(position, 0.0) + 0.25 * score
        segment = cache.managed[layer].sequences[0].retained.segments()[head]
        expected = torch.tensor([average[position] for position in segment.positions.tolist()])
        torch.testing.assert_close(segment.state[:, 17], expected)


def test_past_scores_are_a_feature():
    """A NAMM that scores by them alone: 1, then half of that more, then half of (a half and one and
    a half) more.
    """
    zeros = Namm.zeros(0, memory=Memory(past=0.5))
    theta = zeros.theta.clone()
    theta[8 + 17], theta[-1] = 1.0, 1.0
    policy = Noting(replace(zeros, theta=theta), exact=True)
    read(random_llama(layers=1), make_cache_config(policy, interval=INTERVAL), length=3 * INTERVAL)
    oldest = [float(scores[0]) for _, scores in policy.noted[::2]]
    assert oldest == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    "form", [{"memory": Memory(past=0.5)}, {"spectrogram": Spectrogram(further=(0.999,))}]
)
@pytest.mark.parametrize("chunk", [1, 16, 240])
def test_how_it_is_cut_does_not_matter(form, chunk):
    model, eviction = (
        random_llama(layers=2),
        make_cache_config(NammPolicy(random_namm(**form)), budget=40, interval=INTERVAL),
    )
    one, other = read(model, eviction, chunk=INTERVAL), read(model, eviction, chunk=chunk)
    for a, b in zip(one.managed, other.managed, strict=True):
        assert torch.equal(a.sequences[0].retained.positions, b.sequences[0].retained.positions)
        torch.testing.assert_close(
            a.sequences[0].retained.state, b.sequences[0].retained.state, atol=1e-3, rtol=1e-3
        )


def test_files_say_it(tmp_path):
    namm = random_namm(
        spectrogram=Spectrogram(further=(0.999,)), memory=Memory(past=0.5, peak=True)
    )
    namm.save(tmp_path / "a.safetensors")
    loaded = Namm.load(tmp_path / "a.safetensors")
    assert loaded == namm
    assert (loaded.spectrogram, loaded.memory, loaded.state_width) == (
        namm.spectrogram,
        namm.memory,
        3 * 17 + 1,
    )


def test_the_statistics_of_past_scores_stay_those_of_scores():
    namm = random_namm(memory=Memory(past=0.5)).with_statistics(
        torch.full((18,), 3.0), torch.full((18,), 4.0)
    )
    assert (namm.mean[16:].tolist(), namm.variance[16:].tolist()) == ([3.0, 0.0], [4.0, 1.0])


def test_a_rate_that_is_none():
    with pytest.raises(NammFileError, match=r"decay must be at least 0 and below 1, got 1\.0"):
        Spectrogram(further=(0.999, 1.0))
