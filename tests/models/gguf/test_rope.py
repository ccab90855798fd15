"""RoPE scaling of a GGUF file: keys and tensors of factors give the frequencies of the twin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from namm_llm.errors import ModelError
from namm_llm.models.gguf import load_gguf
from tests.models.gguf.files import (
    VOCABULARY,
    FileWriter,
    gguf,
    random_ids,
    tiny_model,
    write_model,
)

THETA = 500000.0
WIDE = {
    "hidden_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "num_hidden_layers": 1,
}


def llama3(factor: float, high: float, original: int) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": THETA,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def stored_factors(scaling: dict[str, Any], head_dim: int) -> np.ndarray[Any, Any]:
    """As llama.cpp's converter writes `rope_freqs.weight`: one number after the other."""
    factors = []
    for step in range(0, head_dim, 2):
        wave = 2 * math.pi * THETA ** (step / head_dim)
        original, low, high = (
            scaling["original_max_position_embeddings"],
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
        )
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(scaling["factor"])
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def frequencies(model: Any) -> torch.Tensor:
    return model.model.rotary_emb.inv_freq


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(random_ids(120, VOCABULARY)).logits


@pytest.mark.parametrize(
    ("factor", "high", "original"), [(8.0, 4.0, 8192), (32.0, 4.0, 8192), (4.0, 8.0, 2048)]
)
def test_llama3_factors_become_llama3_scaling(
    factor: float, high: float, original: int, tmp_path: Path
) -> None:
    scaling = llama3(factor, high, original)
    twin = tiny_model("llama", VOCABULARY, rope_parameters=scaling, **WIDE)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.add_tensor("rope_freqs.weight", stored_factors(scaling, 128))
    file.add_weights(twin)
    loaded = load_gguf(file.write())
    assert loaded.model.config.rope_parameters == twin.config.rope_parameters
    assert torch.equal(frequencies(loaded.model), frequencies(twin))
    assert torch.equal(logits(loaded.model), logits(twin))


def test_scaled_and_plain_files_differ(tmp_path: Path) -> None:
    scaling = llama3(8.0, 4.0, 8192)
    twin = tiny_model("llama", VOCABULARY, rope_parameters=scaling, **WIDE)
    plain = load_gguf(write_model(tmp_path / "plain.gguf", twin, "llama"))
    assert not torch.equal(frequencies(plain.model), frequencies(twin))


def test_factors_of_no_formula_are_used_as_they_are(tmp_path: Path) -> None:
    factors = np.linspace(1, 3, 8, dtype=np.float32)
    twin = tiny_model("llama", VOCABULARY)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.add_tensor("rope_freqs.weight", factors)
    file.add_weights(twin)
    loaded = load_gguf(file.write())
    wanted = frequencies(twin) / torch.from_numpy(factors)
    torch.testing.assert_close(frequencies(loaded.model), wanted, rtol=1e-6, atol=0)
    assert loaded.model.model.rotary_emb.attention_scaling == 1.0


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 256,
            "attention_factor": 1.3,
        },
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "beta_fast": 16.0,
        },
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_keys_of_scaling_equal_the_twin(
    architecture: str, scaling: dict[str, Any], tmp_path: Path
) -> None:
    rope = {"rope_theta": 10000.0, **scaling}
    twin = tiny_model(architecture, VOCABULARY, rope_parameters=rope)
    file = FileWriter(tmp_path / "m.gguf", twin, architecture)
    writer = file.writer
    writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
    writer.add_rope_scaling_factor(scaling["factor"])
    if "original_max_position_embeddings" in scaling:
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if "attention_factor" in scaling:
        writer.add_rope_scaling_yarn_attn_factor(scaling["attention_factor"])
    if "beta_fast" in scaling:
        writer.add_rope_scaling_yarn_beta_fast(scaling["beta_fast"])
    file.add_weights(twin)
    loaded = load_gguf(file.write())
    assert torch.equal(frequencies(loaded.model), frequencies(twin))
    torch.testing.assert_close(logits(loaded.model), logits(twin), rtol=1e-5, atol=1e-5)


def test_a_factor_without_a_type_is_linear(tmp_path: Path) -> None:
    rope = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}
    twin = tiny_model("llama", VOCABULARY, rope_parameters=rope)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.add_float32("llama.rope.scale_linear", 2.0)
    file.add_weights(twin)
    assert torch.equal(logits(load_gguf(file.write()).model), logits(twin))


def test_gemma_stretches_only_the_layers_that_see_everything(tmp_path: Path) -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    twin = tiny_model("gemma3", VOCABULARY, rope_parameters=rope)
    file = FileWriter(tmp_path / "m.gguf", twin, "gemma3")
    file.writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    file.writer.add_rope_scaling_factor(8.0)
    file.add_weights(twin)
    assert torch.equal(logits(load_gguf(file.write()).model), logits(twin))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_phi3_changes_factors_beyond_its_first_length(share: float, tmp_path: Path) -> None:
    count = int(16 * share) // 2
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": share,
        "short_factor": [1.0 + 0.125 * step for step in range(count)],
        "long_factor": [2.0 + 0.5 * step for step in range(count)],
    }
    twin = tiny_model("phi3", VOCABULARY, rope_parameters=rope, original_max_position_embeddings=64)
    file = FileWriter(tmp_path / "m.gguf", twin, "phi3")
    file.writer.add_rope_scaling_orig_ctx_len(64)
    for name in ("long", "short"):
        file.writer.add_tensor(
            f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], np.float32)
        )
    file.add_weights(twin)
    loaded = load_gguf(file.write()).model
    for length in (40, 120):  # before and beyond
        with torch.no_grad():
            ids = random_ids(length, VOCABULARY)
            assert torch.equal(loaded(ids).logits, twin(ids).logits)


def test_an_unknown_scaling_is_refused_by_its_key(tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.add_float32("llama.rope.scaling.alpha", 2.0)
    file.add_weights(twin)
    with pytest.raises(ModelError, match=r"llama\.rope\.scaling\.alpha"):
        load_gguf(file.write())
