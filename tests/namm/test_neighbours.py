"""The neighbours' features against their definition, token by token."""

import math

import pytest
import torch

from namm_llm.errors import NammFileError
from namm_llm.namm import Memory, Namm, Recency, Spectrogram
from namm_llm.namm.memory import SMALLEST_ATTENTION
from namm_llm.namm.neighbours import apart, neighbours


def by_definition(
    column: torch.Tensor, ages: list[int], reach: int, missing: float
) -> torch.Tensor:
    known = {age: column[at].item() for at, age in enumerate(ages)}
    rows = [[known.get(age + step, missing) for step in range(1, reach + 1)] for age in ages]
    newer = [[known.get(age - step, missing) for step in range(1, reach + 1)] for age in ages]
    return torch.tensor(
        [[*older, *after] for older, after in zip(rows, newer, strict=True)]
    ).reshape(len(ages), 2 * reach)


@pytest.mark.parametrize("reach", [1, 2, 4])
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
def test_a_neighbour_is_one_of_that_distance(ages: list[int], reach: int) -> None:
    column = torch.arange(len(ages)).float() + 1.0
    assert torch.equal(
        neighbours(column, torch.tensor(ages), reach, -7.0),
        by_definition(column, ages, reach, -7.0),
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


@pytest.mark.parametrize("reach", [1, 4])
@pytest.mark.parametrize(
    "segments", [[[0], [0], [0]], [[], [3, 2, 1, 0]], [[5, 0], [], [6, 5, 1, 0], [9]], [[], []]]
)
def test_segments_one_after_the_other_know_nothing_of_each_other(
    reach: int, segments: list[list[int]]
) -> None:
    lengths = [len(ages) for ages in segments]
    ages = torch.tensor([age for segment in segments for age in segment], dtype=torch.int32)
    column = torch.arange(len(ages)).float() + 1.0
    parts = zip(column.split(lengths), segments, strict=True)
    wanted = torch.cat([by_definition(part, own, reach, -7.0) for part, own in parts])
    for known in (100, 1000):  # any number above all ages
        moved, span = apart(ages, lengths, reach, known)
        assert torch.equal(neighbours(column, moved, reach, -7.0, span), wanted)


def family(reach: int = 2, units: int = 3) -> Namm:
    memory = Memory(replay=True, reach=reach)
    namm = Namm.zeros(
        0, spectrogram=Spectrogram(lowest=0), recency=Recency(0), memory=memory, units=units
    )
    theta = torch.randn(len(namm.theta), generator=torch.Generator().manual_seed(1))
    return Namm.from_vector(
        theta,
        [-4.0],
        [9.0],
        spectrogram=namm.spectrogram,
        recency=namm.recency,
        memory=memory,
        units=units,
    )


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


def test_features_of_segments_are_those_of_each_alone() -> None:
    namm = Namm.zeros(
        0,
        spectrogram=Spectrogram(lowest=1),
        recency=Recency(4),
        memory=Memory(replay=True, reach=2),
    )
    states = [torch.rand(n, 2, generator=torch.Generator().manual_seed(n)) for n in (5, 1, 7)]
    ages = [torch.arange(len(state) - 1, -1, -1) * 2 for state in states]
    joined = namm.features(torch.cat(states), torch.cat(ages), [5, 1, 7])
    assert torch.equal(
        joined,
        torch.cat([namm.features(state, age) for state, age in zip(states, ages, strict=True)]),
    )


def test_units_stand_beside_the_linear_score() -> None:
    namm = family()
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    weight, bias, into, offset, out = torch.split(namm.theta, [5, 1, 15, 3, 3])
    hidden = features @ into.view(5, 3) + offset
    wanted = features @ weight + bias + 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))) @ out
    torch.testing.assert_close(namm.scores(features), wanted)


def test_a_file_knows_reach_and_units(tmp_path: object) -> None:
    namm, path = family(reach=4, units=5), f"{tmp_path}/a.safetensors"
    namm.save(path)
    again = Namm.load(path)
    assert again == namm
    assert (again.memory.reach, again.units, again.hidden) == (4, 5, 0)


@pytest.mark.parametrize("memory", [{"reach": 1}, {"replay": True, "reach": -1}])
def test_reach_needs_something_to_reach_for(memory: dict[str, int]) -> None:
    with pytest.raises(NammFileError, match="reach"):
        Memory(**memory)
