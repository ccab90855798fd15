"""GGUF files of tiny random models, written with the names and packing of the package `gguf`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.models.gguf.vocabularies import byte_level_twin

gguf = pytest.importorskip(
    "gguf", reason="the package gguf, which writes the files, is not installed"
)

POSITIONS = 512
VOCABULARY = len(byte_level_twin("gpt-2").metadata["tokens"])
_SHARED = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 3,
    "pad_token_id": None,
    "head_dim": 16,
}
_OWN: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "mistral": {"model_type": "mistral", "sliding_window": 24},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "gemma3": {
        "model_type": "gemma3_text",
        "sliding_window": 24,
        "num_hidden_layers": 7,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "phi3": {
        "model_type": "phi3",
        "sliding_window": None,
        "original_max_position_embeddings": POSITIONS,
    },
}
ARCHITECTURES = tuple(_OWN)


def tiny_model(architecture: str, vocabulary: int, **changes: Any) -> PreTrainedModel:
    """A random model of that architecture; norms and biases are random too."""
    settings = {**_SHARED, **_OWN[architecture], "vocab_size": vocabulary, **changes}
    torch.manual_seed(len(architecture))
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                # multiples of 1/1024, so that Gemma's 1 + w in the file is exact
                small = (torch.randn_like(weight) * 100).round() / 1024
                weight.copy_(small + ("norm" in name and architecture != "gemma3"))
    return model


class FileWriter:
    """One GGUF file in the making; everything can be changed before it is written."""

    def __init__(
        self,
        path: Path,
        model: PreTrainedModel,
        architecture: str,
        vocabulary: dict[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.architecture = architecture
        self.writer = gguf.GGUFWriter(path, architecture)
        self.skip: set[str] = set()
        self._describe(model.config)
        self._add_tokenizer(vocabulary or byte_level_twin("gpt-2").metadata)

    def _describe(self, config: Any) -> None:
        writer = self.writer
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        if getattr(config, "sliding_window", None) and self.architecture in ("mistral", "gemma3"):
            writer.add_sliding_window(config.sliding_window)
        if self.architecture in ("qwen3", "gemma3"):
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        else:
            share = config.rope_parameters.get("partial_rotary_factor", 1.0)
            writer.add_rope_dimension_count(
                int(config.hidden_size // config.num_attention_heads * share)
            )
        rope = config.rope_parameters
        writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])

    def _add_tokenizer(self, metadata: dict[str, Any]) -> None:
        writer = self.writer
        adders = {
            "model": writer.add_tokenizer_model,
            "pre": writer.add_tokenizer_pre,
            "tokens": writer.add_token_list,
            "token_type": writer.add_token_types,
            "scores": writer.add_token_scores,
            "merges": writer.add_token_merges,
            "bos_token_id": writer.add_bos_token_id,
            "eos_token_id": writer.add_eos_token_id,
            "unknown_token_id": writer.add_unk_token_id,
            "add_bos_token": writer.add_add_bos_token,
            "add_space_prefix": writer.add_add_space_prefix,
            "chat_template": writer.add_chat_template,
        }
        for key, value in metadata.items():
            adders[key](value)

    def add_weights(self, model: PreTrainedModel, quantization: str = "F32") -> None:
        """Every weight; matrices in that format, vectors in float32."""
        kind = gguf.GGMLQuantizationType[quantization]
        names = gguf.get_tensor_name_map(_ARCH[self.architecture], model.config.num_hidden_layers)
        for name, weight in model.state_dict().items():
            stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if (
                stored == "output.weight" and model.config.tie_word_embeddings
            ) or stored in self.skip:
                continue
            values = _as_stored(name, weight, self.architecture, model.config)
            if values.ndim > 1 and quantization != "F32":
                self.writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
            else:
                self.writer.add_tensor(stored, values)

    def write(self) -> Path:
        """Onto the disk."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path


_ARCH = {
    **{
        name: gguf.MODEL_ARCH[name.upper()]
        for name in ("llama", "qwen2", "qwen3", "gemma3", "phi3")
    },
    "mistral": gguf.MODEL_ARCH.LLAMA,
}


def _as_stored(
    name: str, weight: torch.Tensor, architecture: str, config: Any
) -> np.ndarray[Any, Any]:
    """What llama.cpp's converter makes of a weight."""
    values = weight.float().numpy()
    if architecture in ("llama", "mistral") and (".q_proj" in name or ".k_proj" in name):
        heads = config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads
        paired = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        values = paired.swapaxes(1, 2).reshape(values.shape)
    if architecture == "gemma3" and name.endswith("norm.weight"):
        values = values + 1
    return np.ascontiguousarray(values)


def write_model(
    path: Path,
    model: PreTrainedModel,
    architecture: str,
    quantization: str = "F32",
    vocabulary: dict[str, Any] | None = None,
) -> Path:
    """A whole file of that model."""
    file = FileWriter(path, model, architecture, vocabulary)
    file.add_weights(model, quantization)
    return file.write()


def random_ids(length: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    """Token ids [1, length]."""
    return torch.randint(5, vocabulary, (1, length), generator=torch.Generator().manual_seed(seed))
