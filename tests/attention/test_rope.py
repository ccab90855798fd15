"""Queries moved to later positions, and query replay."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PhiConfig,
    PhiForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from namm_llm.attention import backend
from namm_llm.attention import observation as observation_module
from namm_llm.attention.observation import Observation
from namm_llm.attention.rope import rotation_of
from namm_llm.errors import ModelError
from tests.architectures import random_llama


def rotated(model, queries: torch.Tensor, start: int) -> torch.Tensor:
    """Unrotated queries [R, Q, D] as the model rotates them from position `start` on."""
    positions = torch.arange(start, start + queries.shape[1])[None]
    cos, sin = model.model.rotary_emb(queries, positions)
    return apply_rotary_pos_emb(queries[None], queries[None], cos, sin)[0][0]


@pytest.mark.parametrize("shift", [0, 1, 512, 100_000])
def test_turning_is_what_the_model_does_at_later_positions(shift):
    model = random_llama(layers=1)
    queries = torch.randn(2, 5, model.config.head_dim)
    turned = rotation_of(model).turn(rotated(model, queries, 9), shift)
    torch.testing.assert_close(
        turned, rotated(model, queries, 9 + shift), atol=2e-2 if shift > 10_000 else 1e-4, rtol=0
    )


def test_numbers_that_are_not_rotated_stay():
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = PhiConfig(**sizes, partial_rotary_factor=0.5)
    rotation = rotation_of(PhiForCausalLM(config))
    queries = torch.randn(1, 3, 16)
    turned = rotation.turn(queries, 40)
    assert torch.equal(turned[..., 8:], queries[..., 8:])
    assert not torch.allclose(turned[..., :8], queries[..., :8])


def test_a_model_without_rotary_positions_is_refused():
    with pytest.raises(ModelError, match="no rotary positions"):
        rotation_of(GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)))


def test_query_replay_is_attention_from_behind_the_text(monkeypatch):
    """As if the last 6 of 10 tokens came once more, from the same hidden states, at positions 10 ..
    15.
    """
    monkeypatch.setattr(observation_module, "_replay_dtype", lambda device: torch.float32)
    monkeypatch.delitem(backend._ON_CPU, "max_replayed_attention")  # which rounds to 16 bits
    model = random_llama(layers=1)
    size = model.config.head_dim
    plain, keys = torch.randn(2, 10, size), rotated(model, torch.randn(1, 10, size), 0)[0]
    observation = Observation(
        queries=rotated(model, plain, 0),
        lse=torch.zeros(2, 10),
        keys=keys,
        positions=torch.arange(10, dtype=torch.int32),
        scale=size**-0.5,
        query_stop=10,
        new_start=4,
        rotation=rotation_of(model),
    )
    expected = (rotated(model, plain[:, 4:], 10) @ keys.T * size**-0.5).softmax(-1)
    found = observation.max_replayed_attention(4)
    torch.testing.assert_close(found, expected.amax((0, 1)), atol=1e-5, rtol=0)
    # nothing is known before the text
    assert observation.max_replayed_attention(-5).shape == (10,)


def test_a_vision_tower_s_positions_are_not_the_text_s():
    """Its own rotary module comes first in the model, and its positions have three coordinates."""
    torch.manual_seed(0)
    text = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [2, 3, 3],
        },
    }
    vision = {
        "depth": 1,
        "embed_dim": 32,
        "hidden_size": 32,
        "num_heads": 2,
        "mlp_ratio": 1,
        "patch_size": 4,
    }
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision))
    rotation = rotation_of(model)
    assert len(rotation.frequencies) == 8  # of 16 numbers of a head
    queries, decoder = torch.randn(1, 3, 16), model.get_decoder()

    def at(start: int) -> torch.Tensor:
        positions = torch.arange(start, start + 3).expand(3, 1, 3)
        cos, sin = decoder.rotary_emb(queries, positions)
        return apply_rotary_pos_emb(queries[None], queries[None], cos, sin)[0][0]

    torch.testing.assert_close(rotation.turn(at(2), 300), at(302), atol=1e-4, rtol=0)


def test_a_rotary_module_that_fails_is_one_clear_line(monkeypatch):
    model = random_llama(layers=1)

    def fails(*_: object) -> None:
        raise ZeroDivisionError("foreign code")

    monkeypatch.setattr(type(model.model.rotary_emb), "forward", fails)
    with pytest.raises(ModelError, match="no rotary positions of the usual layout"):
        rotation_of(model)
