"""The neighbours' features against their definition, token by token."""

import math

import pytest
import torch

from namm_llm.errors import NammFileError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.namm.neighbours import neighbours, separated
from namm_llm.namm.settings import SMALLEST_ATTENTION


def by_definition(
    column: torch.Tensor, ages: list[int], radius: int, missing: float
) -> torch.Tensor:
    known = {age: column[at].item() for at, age in enumerate(ages)}
    rows = [[known.get(age + step, missing) for step in range(1, radius + 1)] for age in ages]
    newer = [[known.get(age - step, missing) for step in range(1, radius + 1)] for age in ages]
    return torch.tensor(
        [[*older, *after] for older, after in zip(rows, newer, strict=True)]
    ).reshape(len(ages), 2 * radius)


@pytest.mark.parametrize("radius", [1, 2, 4])
@pytest.mark.parametrize(
    "ages",
    [
        [],
        [0],
        [1, 0],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        [40, 38, 37, 33, 32, 31, 29, 25, 11, 10, 8, 3, 0],
    ],
)
def test_a_neighbour_is_one_of_that_distance(ages: list[int], radius: int) -> None:
    column = torch.arange(len(ages)).float() + 1.0
    assert torch.equal(
        neighbours(column, torch.tensor(ages), radius, -7.0),
        by_definition(column, ages, radius, -7.0),
    )


def test_random_gaps_and_leading_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    ages = torch.stack(
        [
            torch.randperm(60, generator=generator)[:25].sort(descending=True).values
            for _ in range(6)
        ]
    )
    column = torch.randn(6, 25, generator=generator)
    wanted = torch.stack(
        [by_definition(c, a.tolist(), 3, 0.0) for c, a in zip(column, ages, strict=True)]
    )
    found = neighbours(column.view(2, 3, 25), ages.view(2, 3, 25), 3, 0.0)
    assert torch.equal(found.view(6, 25, 6), wanted)


@pytest.mark.parametrize("radius", [1, 4])
@pytest.mark.parametrize(
    "heads", [[[0], [0], [0]], [[], [3, 2, 1, 0]], [[5, 0], [], [6, 5, 1, 0], [9]], [[], []]]
)
def test_heads_one_after_the_other_know_nothing_of_each_other(
    radius: int, heads: list[list[int]]
) -> None:
    lengths = [len(ages) for ages in heads]
    ages = torch.tensor([age for head in heads for age in head], dtype=torch.int32)
    column = torch.arange(len(ages)).float() + 1.0
    parts = zip(column.split(lengths), heads, strict=True)
    wanted = torch.cat([by_definition(part, own, radius, -7.0) for part, own in parts])
    for known in (100, 1000):  # any number above all ages
        moved, span = separated(ages, lengths, radius, known)
        assert torch.equal(neighbours(column, moved, radius, -7.0, span), wanted)


def family(radius: int = 2, mlp_hidden: int = 3) -> Namm:
    settings = NammSettings(
        Spectrogram(num_bins=0),
        Recency(0),
        replay=True,
        neighbour_radius=radius,
        mlp_hidden=mlp_hidden,
    )
    count = len(Namm.zeros(0, settings).theta)
    theta = torch.randn(count, generator=torch.Generator().manual_seed(1))
    return Namm.from_vector(theta, [-4.0], [9.0], settings)


def test_a_missing_neighbour_looks_like_one_that_nothing_asked_for() -> None:
    namm = family()
    state = torch.tensor([[0.5], [0.25], [0.125]])
    features = namm.features(state, torch.tensor([9, 8, 4]))
    floor = (math.log(SMALLEST_ATTENTION) + 4.0) / 3.0
    own = [(math.log(value) + 4.0) / 3.0 for value in (0.5, 0.25, 0.125)]
    wanted = [
        [own[0], floor, floor, own[1], floor],
        [own[1], own[0], floor, floor, floor],
        [own[2], floor, floor, floor, floor],
    ]
    torch.testing.assert_close(features, torch.tensor(wanted))


def test_features_of_heads_are_those_of_each_alone() -> None:
    settings = NammSettings(Spectrogram(num_bins=1), Recency(4), replay=True, neighbour_radius=2)
    namm = Namm.zeros(0, settings)
    states = [torch.rand(n, 2, generator=torch.Generator().manual_seed(n)) for n in (5, 1, 7)]
    ages = [torch.arange(len(state) - 1, -1, -1) * 2 for state in states]
    joined = namm.features(torch.cat(states), torch.cat(ages), [5, 1, 7])
    assert torch.equal(
        joined,
        torch.cat([namm.features(state, age) for state, age in zip(states, ages, strict=True)]),
    )


def test_the_hidden_layer_stands_beside_the_linear_score() -> None:
    namm = family()
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    weight, bias, into, offset, out = torch.split(namm.theta, [5, 1, 15, 3, 3])
    hidden = features @ into.view(5, 3) + offset
    wanted = features @ weight + bias + 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))) @ out
    torch.testing.assert_close(namm.scores(features), wanted)


@pytest.mark.parametrize(
    "settings", [{"neighbour_radius": 1}, {"replay": True, "neighbour_radius": -1}]
)
def test_a_radius_needs_replayed_attention(settings: dict[str, int]) -> None:
    with pytest.raises(NammFileError, match="neighbour_radius"):
        NammSettings(**settings)
