"""A model with room beside it for what is wired by hand."""

from __future__ import annotations

import pytest
import torch

from recipes.namm_tiny.codes import exact, of_angles, turns_of_pairs
from recipes.namm_tiny.list_circuits import NEAR_ASSISTANT, NEAR_OF, NEAR_QUESTION
from recipes.namm_tiny.model import CONTINUED_THETA, POSITIONS
from recipes.namm_tiny.wiring import UNIT, Channels, Layer, lengths, unwired, widen
from tests.models import VOCABULARY, random_ids, random_llama

CHANNELS = Channels.of({"one": 1, "mark": 1, "seen": 1, "unused": 29})


def wired(model, wire):
    """The model with channels of which all tokens have `one`, and token 5 has `mark`."""
    half = model.config.head_dim // 2
    layers = [Layer(CHANNELS, 5e5 ** (-torch.arange(half) / half)) for _ in model.model.layers]
    wire(layers)
    embedding = torch.zeros(VOCABULARY, len(CHANNELS.index))
    embedding[:, 0], embedding[5, 1] = UNIT, UNIT
    typical = lengths(model, random_ids(1, 40)[0]).mean(dim=1)
    return widen(model, layers, embedding, typical).eval()


def test_room_changes_next_to_nothing_and_can_be_taken_away():
    model, ids = random_llama(), random_ids(1, 60)
    wide = wired(model, lambda layers: None)
    torch.testing.assert_close(wide(ids).logits, model(ids).logits, atol=2e-2, rtol=2e-2)
    narrow = unwired(wide)
    for before, after in zip(model.parameters(), narrow.parameters(), strict=True):
        torch.testing.assert_close(before, after)
    assert unwired(narrow) is narrow


def test_a_wired_head_fetches_from_the_token_that_it_matches():
    def wire(layers):
        layers[0].match(0, 7, {"one": 50.0}, {"mark": 1.0})  # the slowest plane of 8
        layers[0].fetch([0], "mark", ["seen"])
        layers[0].unit({"mark": 40.0, "one": -20.0}, {"one": 1.0}, {})

    ids = random_ids(1, 60)
    ids[ids == 5] = 6
    ids[0, 20] = 5
    wide = wired(random_llama(), wire)
    seen = wide(ids, output_hidden_states=True).hidden_states[1][0, :, 64 + CHANNELS.index["seen"]] / UNIT
    assert seen[:20].abs().max() < 1e-6
    assert (seen[20:] > 0.5).all()


def test_a_step_is_a_ramp_that_ends():
    layer = Layer(CHANNELS, torch.ones(8))
    layer.step({"mark": 1.0}, "one", {"one": 1.0}, {"seen": 1.0})
    marks = torch.tensor([-3.0, -1.0, 0.5, 1.0, 2.0, 9.0])
    states = torch.stack([torch.ones(6), marks, *torch.zeros(30, 6)], dim=1)
    gates, ups, downs = (torch.stack(rows) for rows in (layer.gates, layer.ups, layer.downs))
    written = (torch.nn.functional.silu(states @ gates.T) * (states @ ups.T)) @ downs / UNIT
    torch.testing.assert_close(written[:, 2], marks.clamp(0, 1), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("weights", "gap", "near", "least", "far", "lower"),
    [(NEAR_OF, 3, 22, 0.018, 48, 0.3), (NEAR_ASSISTANT, 12, 200, 0.014, 1000, 0.2), (NEAR_QUESTION, 25, 20, 0.3, 45, 0.3)],
)
def test_sums_of_cosines_fall_with_the_distance_and_stay_low(weights, gap, near, least, far, lower):
    assert sum(weights.values()) == pytest.approx(1)
    distance = torch.arange(POSITIONS, dtype=torch.float64)
    total = sum(weight * torch.cos(CONTINUED_THETA ** (-plane / 32) * distance) for plane, weight in weights.items())
    highest_beyond = total.flip(0).cummax(0).values.flip(0)
    assert (total[: near + 1] - highest_beyond[gap : near + gap + 1]).min() >= least
    assert total[near] - highest_beyond[far] >= lower


def test_codes_are_as_long_as_one_after_rounding():
    scale = torch.linspace(0.03, 0.09, 200)
    angles = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 6
    codes = of_angles(angles + 0.02 * torch.randn(64, 200, 2, generator=torch.Generator().manual_seed(1)))
    rounded = (exact(codes, scale) * scale[:, None]).bfloat16().float()
    assert (rounded.norm(dim=1) / scale - 1).abs().max() < 6e-4
    assert ((codes[0] * scale[:, None]).bfloat16().float().norm(dim=1) / scale - 1).abs().max() > 1e-3


def test_numbers_turn_pairs_so_that_no_two_look_alike():
    turns = turns_of_pairs(9, 4)
    code = of_angles(torch.tensor([0.3, 1.0, 2.0, 4.0]))
    turned = turns @ code
    alike = turned @ turned.T
    torch.testing.assert_close(alike.diagonal(), torch.ones(9))
    assert (alike - 2 * torch.eye(9)).max() < 0
