"""Fused decoder layers against the layers of their family."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from namm_llm.models.packed import PackedLinear, from_linear, fuse_layers
from tests.models.packed.conftest import distance

_SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "attn_implementation": "sdpa",
}
_CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**_SHAPE),
    "llama with biases": LlamaConfig(**_SHAPE, attention_bias=True),
    "mistral": MistralConfig(**_SHAPE, sliding_window=8),
    "qwen2": Qwen2Config(**_SHAPE),
    "qwen3": Qwen3Config(**_SHAPE, head_dim=32),
    "gemma3": Gemma3TextConfig(
        **_SHAPE, head_dim=32, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi3": Phi3Config(**_SHAPE, partial_rotary_factor=0.5),
}


def packed_model(config: Any, *, exact: bool = True) -> PreTrainedModel:
    """A random model whose maps are packed in 8 bits."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.normal_(parameter, mean=0.5, std=0.2)  # else a norm that is left out is unseen
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            packed = from_linear(module, 8)
            assert packed is not None
            packed.exact = exact
            model.set_submodule(name, packed)
    return model.requires_grad_(False)


def logits_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits of a text that is read in a long part, a short one and token by token."""
    cache, found = DynamicCache(config=model.config), []
    for part in ids.split([20, 3, *[1] * (ids.shape[1] - 23)], 1):
        found.append(model(part, past_key_values=cache).logits)
    return torch.cat(found, 1)


@pytest.mark.parametrize("family", _CONFIGS)
def test_fused_layers_compute_the_same(compiled: None, family: str) -> None:
    model, ids = packed_model(_CONFIGS[family]), torch.randint(1, 128, (2, 27))
    with torch.inference_mode():
        wanted = logits_of(model, ids)
        assert fuse_layers(model) == 2
        assert distance(logits_of(model, ids), wanted) < 2e-5


@pytest.mark.parametrize("family", _CONFIGS)
def test_fused_layers_compute_in_bfloat16(compiled: None, family: str) -> None:
    model, ids = packed_model(_CONFIGS[family], exact=False), torch.randint(1, 128, (1, 27))
    with torch.inference_mode():
        wanted = logits_of(model, ids)
        fuse_layers(model)
        found = logits_of(model.bfloat16(), ids)
    assert found.dtype is torch.bfloat16
    assert distance(found, wanted) < 0.05


def test_positions_may_differ_between_rows(compiled: None) -> None:
    model, ids = packed_model(_CONFIGS["llama"]), torch.randint(1, 128, (2, 9))
    positions = torch.stack([torch.arange(9), torch.arange(40, 49)])
    with torch.inference_mode():
        wanted = model(ids, position_ids=positions).logits
        fuse_layers(model)
        assert distance(model(ids, position_ids=positions).logits, wanted) < 2e-5


def test_gradients_take_the_layers_own_way(compiled: None) -> None:
    model = packed_model(_CONFIGS["llama"])
    embedded = torch.randn(1, 5, 64)
    grads = []
    for fused in (False, True):
        if fused:
            fuse_layers(model)
        inputs = embedded.clone().requires_grad_(True)
        model(inputs_embeds=inputs).logits.sum().backward()
        assert inputs.grad is not None
        grads.append(inputs.grad)
    assert distance(grads[1], grads[0]) < 1e-5


def test_fused_layers_are_still_layers_of_their_family(compiled: None) -> None:
    model, ids = packed_model(_CONFIGS["llama"]), torch.randint(1, 128, (1, 6))
    fuse_layers(model)
    with torch.inference_mode():
        states = model(ids, output_hidden_states=True).hidden_states
    assert len(states) == 3


def test_a_fused_model_can_be_copied(compiled: None) -> None:
    model, ids = packed_model(_CONFIGS["gemma3"]), torch.randint(1, 128, (1, 6))
    fuse_layers(model)
    with torch.inference_mode():
        wanted = model(ids).logits
        copied = copy.deepcopy(model)
        del model
        assert torch.equal(copied(ids).logits, wanted)


def test_fused_products_take_no_memory_of_their_own(compiled: None) -> None:
    model = packed_model(_CONFIGS["llama"])
    before = {buffer.data_ptr() for buffer in model.buffers() if buffer.numel() > 1000}
    fuse_layers(model)
    assert {buffer.data_ptr() for buffer in model.buffers() if buffer.numel() > 1000} == before


def test_precision_of_fused_products_can_be_changed(compiled: None) -> None:
    model, ids = packed_model(_CONFIGS["llama"], exact=False), torch.randint(1, 128, (1, 27))
    exact = packed_model(_CONFIGS["llama"], exact=True)
    fuse_layers(model)
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.exact = True
    with torch.inference_mode():
        assert distance(logits_of(model, ids), logits_of(exact, ids)) < 2e-5


def test_other_layers_are_left(compiled: None) -> None:
    unknown = GPTNeoXConfig(**{k: v for k, v in _SHAPE.items() if "key_value" not in k})
    assert fuse_layers(packed_model(unknown)) == 0
    odd = LlamaConfig(**_SHAPE, hidden_act="relu")
    assert fuse_layers(packed_model(odd)) == 0
    dense = AutoModelForCausalLM.from_config(_CONFIGS["llama"])
    assert fuse_layers(dense) == 0
