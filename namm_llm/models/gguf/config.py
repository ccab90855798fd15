"""The configuration of transformers that a GGUF file describes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from transformers import AutoConfig, PreTrainedConfig

from namm_llm.errors import ModelError
from namm_llm.models.gguf.architectures import Architecture, find_architecture
from namm_llm.models.gguf.file import GgufFile
from namm_llm.models.gguf.rope import rope_parameters
from namm_llm.models.gguf.sizes import Sizes

_GEMMA3_PERIOD: Final = 6  # every sixth layer sees the whole text
_GEMMA3_LOCAL_BASE: Final = 10000.0
_GEMMA3_LAYERS_27B: Final = 62  # the one Gemma 3 that scales attention by hidden size / heads
_REFUSED: Final = {
    "expert_count": "a mixture of experts",
    "attn_logit_softcapping": "capped attention scores",
    "attention.clamp_kqv": "clamped keys and values",
    "attention.max_alibi_bias": "ALiBi positions",
}


def make_config(file: GgufFile) -> tuple[Architecture, PreTrainedConfig]:
    """The file's architecture and its configuration in transformers.

    Raises:
        ModelError: an architecture, size or option that cannot be loaded, with its name and value.
    """
    architecture = find_architecture(file.metadata.text("general.architecture"), file.path)
    prefix = architecture.name
    _refuse(file, prefix)
    sizes = Sizes(file, prefix)
    model_type = architecture.model_type
    if prefix == "llama" and _window(file, prefix):
        model_type = "mistral"
    values = _common(file, prefix, sizes)
    if model_type == "gemma3_text":
        values |= _gemma3(file, prefix, sizes, values["rope_parameters"])
    elif model_type == "phi3":
        values |= _phi3(file, prefix, sizes, values["rope_parameters"])
    else:
        values |= _llama_like(file, prefix, sizes, model_type)
    try:
        config = AutoConfig.for_model(model_type, **values)
    except Exception as error:  # transformers checks its settings by classes of its own
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{file.path} does not describe a usable {prefix} model: {reason}"
        ) from error
    return architecture, config


def _refuse(file: GgufFile, prefix: str) -> None:
    """ModelError for what the architectures of transformers do not have."""
    for key, what in _REFUSED.items():
        if np.any(file.metadata.get(f"{prefix}.{key}", 0)):
            raise ModelError(f"{file.path} is a {prefix} with {what}; it cannot be loaded.")
    if not np.all(file.metadata.get(f"{prefix}.attention.causal", True)):
        raise ModelError(f"{file.path} is an embedding model, which cannot write.")


def _common(file: GgufFile, prefix: str, sizes: Sizes) -> dict[str, Any]:
    metadata = file.metadata
    return {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "max_position_embeddings": sizes.positions,
        "rms_norm_eps": metadata.number(f"{prefix}.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": rope_parameters(file, prefix, sizes.rotated, sizes.positions),
        "bos_token_id": token_id(file, "bos", sizes.vocabulary),
        "eos_token_id": token_id(file, "eos", sizes.vocabulary),
        "pad_token_id": token_id(file, "padding", sizes.vocabulary),
    }


def token_id(file: GgufFile, kind: str, vocabulary: int) -> int | None:
    """The id of a special token, such as bos; None if the file names none.

    Raises:
        ModelError: there is no such token.
    """
    key = f"tokenizer.ggml.{kind}_token_id"
    value = file.metadata.get(key)
    if value is None or value == 0xFFFFFFFF:  # llama.cpp's null
        return None
    number = file.metadata.integer(key)
    if number >= vocabulary:
        raise ModelError(f"{file.path} is damaged: {key} is {number} of {vocabulary} tokens.")
    return number


def _window(file: GgufFile, prefix: str) -> int | None:
    """The sliding window; None if attention sees everything."""
    return file.metadata.integer(f"{prefix}.attention.sliding_window", 0) or None


def _llama_like(file: GgufFile, prefix: str, sizes: Sizes, model_type: str) -> dict[str, Any]:
    if sizes.rotated != sizes.head_dim:
        raise ModelError(
            f"{file.path} rotates {sizes.rotated} of {sizes.head_dim} numbers of a head, which "
            f"{model_type} of transformers does not."
        )
    if model_type == "mistral":
        return {"sliding_window": _window(file, prefix)}
    if model_type == "llama":
        return {
            "attention_bias": "blk.0.attn_q.bias" in file.tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        }
    return {}


def _phi3(file: GgufFile, prefix: str, sizes: Sizes, rope: dict[str, Any]) -> dict[str, Any]:
    original = file.metadata.integer(
        f"{prefix}.rope.scaling.original_context_length", sizes.positions, least=1
    )
    return {
        "sliding_window": _window(file, prefix),
        "original_max_position_embeddings": original,
        "rope_parameters": rope | {"partial_rotary_factor": sizes.rotated / sizes.head_dim},
    }


def _gemma3(file: GgufFile, prefix: str, sizes: Sizes, rope: dict[str, Any]) -> dict[str, Any]:
    metadata = file.metadata
    local = metadata.number(f"{prefix}.rope.freq_base_swa", _GEMMA3_LOCAL_BASE)
    whole = sizes.layers == _GEMMA3_LAYERS_27B
    values: dict[str, Any] = {
        "sliding_window": _window(file, prefix),
        "layer_types": _layer_types(file, prefix, sizes.layers),
        "query_pre_attn_scalar": sizes.hidden // sizes.heads if whole else sizes.head_dim,
        # scaling stretches the layers that see everything; a window never gets that far
        "rope_parameters": {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }
    if f"{prefix}.final_logit_softcapping" in metadata:
        values["final_logit_softcapping"] = metadata.number(f"{prefix}.final_logit_softcapping")
    return values


def _layer_types(file: GgufFile, prefix: str, layers: int) -> list[str]:
    """Which layers see the whole text: of a stated pattern or period, else every sixth."""
    key = f"{prefix}.attention.sliding_window_pattern"
    pattern = file.metadata.get(key, _GEMMA3_PERIOD)
    if _window(file, prefix) is None:
        return ["full_attention"] * layers
    if isinstance(pattern, np.ndarray):
        if pattern.size != layers:
            raise ModelError(f"{file.path} says {key} for {pattern.size} of {layers} layers.")
        return ["sliding_attention" if slides else "full_attention" for slides in pattern]
    period = file.metadata.integer(key, _GEMMA3_PERIOD, least=1)
    return [
        "full_attention" if number % period == 0 else "sliding_attention"
        for number in range(1, layers + 1)
    ]
