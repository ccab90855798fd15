"""A model from a GGUF file computes what the model that the file was written from computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from namm_llm.models.gguf import load_gguf
from namm_llm.models.gguf.blocks import dequantize
from tests.models.gguf.files import (
    ARCHITECTURES,
    VOCABULARY,
    FileWriter,
    gguf,
    random_ids,
    tiny_model,
    write_model,
)


def logits(model: Any, length: int = 80) -> torch.Tensor:
    with torch.no_grad():
        return model(random_ids(length, VOCABULARY)).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_the_twin(architecture: str, tmp_path: Path) -> None:
    twin = tiny_model(architecture, VOCABULARY)
    loaded = load_gguf(write_model(tmp_path / "m.gguf", twin, architecture))
    assert torch.equal(logits(loaded.model), logits(twin))
    assert loaded.architecture == architecture
    assert loaded.positions == twin.config.max_position_embeddings


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "phi3"])
def test_tied_heads_equal_the_twin(architecture: str, tmp_path: Path) -> None:
    twin = tiny_model(architecture, VOCABULARY, tie_word_embeddings=True)
    loaded = load_gguf(write_model(tmp_path / "m.gguf", twin, architecture))
    assert torch.equal(logits(loaded.model), logits(twin))
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@pytest.mark.parametrize("quantization", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_packed_weights_equal_their_expanded_twin(quantization: str, tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY)
    loaded = load_gguf(write_model(tmp_path / "m.gguf", twin, "llama", quantization))
    kind = gguf.GGMLQuantizationType[quantization]
    with torch.no_grad():
        for weight in twin.parameters():
            if weight.ndim > 1:
                weight.copy_(
                    torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind))
                )
    assert torch.equal(logits(loaded.model), logits(twin))
    assert loaded.quantization == quantization


def test_biases_of_llama_are_permuted_too(tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY, attention_bias=True, mlp_bias=True)
    loaded = load_gguf(write_model(tmp_path / "m.gguf", twin, "llama"))
    assert torch.equal(logits(loaded.model), logits(twin))


def test_a_llama_with_a_window_is_a_mistral(tmp_path: Path) -> None:
    twin = tiny_model("mistral", VOCABULARY)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.add_sliding_window(twin.config.sliding_window)
    file.add_weights(twin)
    loaded = load_gguf(file.write())
    assert loaded.model.config.model_type == "mistral"
    assert torch.equal(logits(loaded.model), logits(twin))


def test_fused_q_k_v_are_taken_apart(tmp_path: Path) -> None:
    twin = tiny_model("qwen2", VOCABULARY)
    file = FileWriter(tmp_path / "m.gguf", twin, "qwen2")
    state = twin.state_dict()
    for layer in range(twin.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            file.skip |= {f"blk.{layer}.attn_{part}.{kind}" for part in "qkv"}
            parts = [state[f"model.layers.{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            file.writer.add_tensor(f"blk.{layer}.attn_qkv.{kind}", torch.cat(parts).numpy())
    file.add_weights(twin)
    assert torch.equal(logits(load_gguf(file.write()).model), logits(twin))


def test_linear_modules_of_the_caller_get_packed_rows_in_transformers_order(tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY, tie_word_embeddings=True)
    path = write_model(tmp_path / "m.gguf", twin, "llama", "Q8_0")
    taken: list[tuple[str, tuple[int, int]]] = []

    def make_linear(
        rows: torch.Tensor, type_name: str, shape: tuple[int, int], bias: torch.Tensor | None
    ) -> torch.nn.Module | None:
        if shape == (96, 64):
            return None  # expanded
        taken.append((type_name, shape))
        linear = torch.nn.Linear(shape[1], shape[0], bias=False)
        linear.weight = torch.nn.Parameter(dequantize(rows, type_name))
        return linear

    packed = load_gguf(path, make_linear=make_linear)
    assert torch.equal(logits(packed.model), logits(load_gguf(path).model))
    assert (("Q8_0", (VOCABULARY, 64))) in taken  # the tied head
    assert len(packed.expanded) == 7  # the embedding, and two matrices in each of three layers
    assert "model.layers.0.mlp.gate_proj (Q8_0)" in packed.expanded
