"""The architectures of GGUF files that can be loaded, and what transformers calls their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from namm_llm.errors import ModelError

_LLAMA_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS: Final = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA3_LAYER: Final = {
    **_LLAMA_LAYER,
    **_HEAD_NORMS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_LEVEL: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""Parts that are not of one layer: name in the file to name in transformers."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one architecture of llama.cpp maps to a model of transformers."""

    name: str
    """`general.architecture` of the file, and the prefix of its keys."""
    model_type: str
    """The configuration's type in transformers."""
    layer: dict[str, str] = field(default_factory=lambda: dict(_LLAMA_LAYER))
    """Parts of a layer: name behind `blk.N.` in the file to name behind `model.layers.N.`."""
    permuted: bool = False
    """Whether the rows of q and k are stored in pairs, as llama.cpp rotates them, not in halves."""
    norm_offset: float = 0.0
    """What the file adds to the weights of every norm."""


_KNOWN: Final = (
    Architecture(name="llama", model_type="llama", permuted=True),
    Architecture(name="mistral", model_type="mistral", permuted=True),
    Architecture(name="qwen2", model_type="qwen2"),
    Architecture(name="qwen3", model_type="qwen3", layer={**_LLAMA_LAYER, **_HEAD_NORMS}),
    Architecture(name="gemma3", model_type="gemma3_text", layer=_GEMMA3_LAYER, norm_offset=1.0),
    Architecture(name="phi3", model_type="phi3", layer=_PHI3_LAYER),
)
ARCHITECTURES: Final = {known.name: known for known in _KNOWN}
"""By name."""


def find_architecture(name: str, path: object) -> Architecture:
    """The architecture of that name. ModelError, naming it, if it cannot be loaded."""
    if name not in ARCHITECTURES:
        raise ModelError(
            f"{path} holds a model of the architecture {name[:40]!r}; a GGUF file can be loaded if "
            f"it is one of {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]
