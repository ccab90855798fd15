"""Models with random weights in the shapes that are measured: for speed and memory, weights need not be trained."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from namm_llm import Namm

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4},
    "wide": {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
}
POSITIONS = 131_072


def random_model(shape: str, dtype: torch.dtype) -> PreTrainedModel:
    """A Llama of this shape with random weights; `wide` has head size 128."""
    torch.manual_seed(0)
    vocabulary = 4096 if shape != "100m" else 32_000
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=POSITIONS, tie_word_embeddings=True, **SHAPES[shape])
    return LlamaForCausalLM(config).eval().to(dtype)


def random_namm() -> Namm:
    """A NAMM with random parameters: it costs what a trained one costs."""
    zeros = Namm.zeros()
    theta = 0.1 * torch.randn(zeros.vector.shape, generator=torch.Generator().manual_seed(0))
    return Namm.from_vector(theta, torch.full((17,), 0.02), torch.full((17,), 0.01))


def random_ids(model: PreTrainedModel, length: int) -> torch.Tensor:
    """Token ids `[1, length]`."""
    return torch.randint(0, model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(1))
