"""Sines and cosines of an age, against `math` in float64."""

import math

import pytest
import torch

from namm_llm.errors import NammFileError
from namm_llm.namm import Recency
from namm_llm.namm.recency import recency


@pytest.mark.parametrize("age", [0, 1, 511, 32_768, 32_769, 1_234_567, 10_000_000, 50_000_001])
def test_any_age_equals_float64(age: int) -> None:
    frequencies = [1.0, 50_000**-0.25, 50_000**-0.5, 50_000**-0.75]
    expected = [math.sin(age * f) for f in frequencies] + [math.cos(age * f) for f in frequencies]

    embedding = recency(torch.tensor([age]))

    assert embedding.shape == (1, 8)
    assert embedding.dtype == torch.float32
    assert embedding[0].tolist() == pytest.approx(expected, abs=1e-7)


def test_the_frequencies_of_the_paper() -> None:
    """Independent of the formula: the numbers themselves, seen through a small age."""
    assert torch.asin(recency(torch.tensor([1]))[0, :4]).tolist() == pytest.approx(
        [1.0, 0.0668740, 0.00447214, 0.000299070], rel=1e-5
    )


def test_leading_dimensions_and_settings() -> None:
    ages = torch.arange(24).view(2, 3, 4)
    settings = Recency(size=4, max_freq=100.0)

    embedding = recency(ages, settings)

    assert embedding.shape == (2, 3, 4, 4)
    assert torch.equal(embedding[1, 2], recency(ages[1, 2], settings))
    assert embedding[1, 2, 3].tolist() == pytest.approx(
        [math.sin(23), math.sin(2.3), math.cos(23), math.cos(2.3)]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 7}, "The recency embedding needs an even size, got 7."),
        (
            {"max_freq": 0.0},
            "The recency embedding's max_freq must be finite and at least 1, got 0.0.",
        ),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, float], message: str) -> None:
    with pytest.raises(NammFileError) as error:
        Recency(**settings)  # type: ignore[arg-type]

    assert str(error.value) == message
