"""A model that is made deeper, or gets more KV heads."""

from __future__ import annotations

import pytest
import torch

from namm_lab.tiny.model import deepen, regroup
from tests.architectures import random_ids, random_llama


def test_new_layers_change_nothing_and_stand_in_the_middle():
    model, ids = random_llama(layers=2), random_ids(1, 40)
    first, last = (layer.self_attn.q_proj.weight.clone() for layer in model.model.layers)
    expected = model(ids).logits
    deeper = deepen(model, 4).eval()
    assert deeper.config.num_hidden_layers == len(deeper.model.layers) == 4
    torch.testing.assert_close(deeper(ids).logits, expected)
    assert torch.equal(deeper.model.layers[0].self_attn.q_proj.weight, first)
    assert torch.equal(deeper.model.layers[3].self_attn.q_proj.weight, last)


def test_more_kv_heads_change_nothing():
    model, ids = random_llama(layers=2), random_ids(1, 40)
    expected, heads = model(ids).logits, model.config.num_attention_heads
    assert model.config.num_key_value_heads < heads
    regrouped = regroup(model, heads).eval()
    assert regrouped.config.num_key_value_heads == heads
    torch.testing.assert_close(regrouped(ids).logits, expected)


def test_kv_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="cannot become 3"):
        regroup(random_llama(layers=1), 3)
