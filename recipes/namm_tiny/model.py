"""The model's shape, and the positional heads that it starts with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.namm_tiny.tokenizer import BOS, END, PAD, Encoder

POSITIONS = 32768
THETA = 1e7
"""A base so large leaves a dozen of the 32 planes insensitive to 16 000 positions: they compare content."""


def build_model(encode: Encoder, hidden: int = 320, layers: int = 4, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    token = encode.core.token_to_id
    config = LlamaConfig(
        vocab_size=encode.core.get_vocab_size(), hidden_size=hidden, intermediate_size=hidden * 14 // 5,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=POSITIONS, rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True, initializer_range=0.04, bos_token_id=token(BOS), eos_token_id=token(END),
        pad_token_id=token(PAD),
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    add_positional_heads(model)
    return model


@torch.no_grad()
def add_positional_heads(
    model: LlamaForCausalLM,
    offsets: tuple[tuple[int, ...], ...] = ((1, 2), (3, 4)),
    gap: float = 20.0,
    length: float = 0.8,
) -> None:
    """Lets the query heads of KV head `g` in layer 0 attend to `offsets[g]` tokens back.

    Without biases a Llama has no constant direction to make such a head from, and a small training spends
    most of its time on finding one. So one random direction is added to every embedding; keys and queries of
    it differ by a rotation of `offset` positions. `gap` is the logit at the offset; faster planes weigh more,
    for they tell neighbours apart. Planes are (i, i + size / 2), as transformers lays them out.
    """
    config, attention = model.config, model.model.layers[0].self_attn
    size, embedding = config.head_dim, model.model.embed_tokens.weight
    constant = nn.functional.normalize(torch.randn(config.hidden_size), dim=0)
    embedding += length * constant
    share = (nn.functional.rms_norm(embedding, (config.hidden_size,)) @ constant).mean()
    frequency = config.rope_parameters["rope_theta"] ** (-torch.arange(0, size, 2) / size)
    weight = frequency**0.25
    unit = torch.cat([weight.sqrt(), torch.zeros(size // 2)])
    scale = (gap * size**0.5 / weight.sum()) ** 0.5 / share
    group = config.num_attention_heads // config.num_key_value_heads
    for kv_head, of_group in enumerate(offsets):
        key = attention.k_proj.weight[kv_head * size : (kv_head + 1) * size]
        key.mul_(0.3).add_(scale * torch.outer(unit, constant))
        for i, offset in enumerate(of_group):
            head = kv_head * group + i
            query = attention.q_proj.weight[head * size : (head + 1) * size]
            query.mul_(0.3).add_(scale * torch.outer(rotate(unit, -offset * frequency), constant))


def rotate(vector: Tensor, angle: Tensor) -> Tensor:
    """`vector` (size) turned by `angle` (size / 2) in each plane."""
    angle = torch.cat([angle, angle])
    first, second = vector.chunk(2)
    return vector * angle.cos() + torch.cat([-second, first]) * angle.sin()
