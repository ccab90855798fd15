"""The model's shape, and the circuits it starts with: heads that look a few tokens back, and heads
that copy by content.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from namm_lab.tiny.tokenizer import BOS, END, PAD, Encoder

POSITIONS = 32768
THETA = 1e7
"""A dozen of the 32 planes hardly turn within 16 000 positions with it: they compare content."""
CONTINUED_THETA = 5e5
OFFSETS = (1, 2, 3, 4)


def build_model(
    encode: Encoder, hidden: int = 320, layers: int = 5, seed: int = 0
) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    token = encode.core.token_to_id
    config = LlamaConfig(
        vocab_size=encode.core.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=hidden * 14 // 5,
        num_hidden_layers=layers,
        num_attention_heads=len(OFFSETS),
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=token(BOS),
        eos_token_id=token(END),
        pad_token_id=token(PAD),
    )
    model = LlamaForCausalLM(config)
    Circuits(model).install()
    return model


def continue_model(
    folder: Path, encode: Encoder, layers: int = 5, kv_heads: int | None = None
) -> LlamaForCausalLM:
    """A trained model with room for the special tokens that its tokenizer lacked, this recipe's
    RoPE base and positions, and so many layers and KV heads.
    """
    token = encode.core.token_to_id
    config = LlamaConfig.from_pretrained(folder)
    config.rope_parameters = {"rope_type": "default", "rope_theta": CONTINUED_THETA}
    config.max_position_embeddings = POSITIONS
    model = LlamaForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    model.resize_token_embeddings(encode.core.get_vocab_size(), mean_resizing=True)
    for ids in (model.config, model.generation_config):
        ids.bos_token_id, ids.eos_token_id, ids.pad_token_id = token(BOS), token(END), token(PAD)
    return deepen(regroup(model, kv_heads or model.config.num_key_value_heads), layers)


@torch.no_grad()
def regroup(model: LlamaForCausalLM, kv_heads: int) -> LlamaForCausalLM:
    """The same function with more KV heads, copies for now, in smaller groups of query heads."""
    old, size = model.config.num_key_value_heads, model.config.head_dim
    if kv_heads % old or model.config.num_attention_heads % kv_heads:
        raise ValueError(
            f"{old} KV heads cannot become {kv_heads} of {model.config.num_attention_heads} "
            "query heads"
        )
    state = model.state_dict()
    for name in [name for name in state if name.endswith(("k_proj.weight", "v_proj.weight"))]:
        state[name] = (
            state[name]
            .view(old, 1, size, -1)
            .expand(-1, kv_heads // old, -1, -1)
            .reshape(kv_heads * size, -1)
        )
    model.config.num_key_value_heads = kv_heads
    regrouped = LlamaForCausalLM(model.config)
    regrouped.generation_config = model.generation_config
    regrouped.load_state_dict(state)
    return regrouped


@torch.no_grad()
def deepen(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """The same function with layers in the middle that add nothing yet, `layers` in all."""
    old = model.config.num_hidden_layers
    if layers <= old:
        return model
    model.config.num_hidden_layers = layers
    model.config.layer_types = None
    deeper = LlamaForCausalLM(model.config)
    deeper.generation_config = model.generation_config
    missing = deeper.load_state_dict(
        {_moved(name, old, layers): weight for name, weight in model.state_dict().items()},
        strict=False,
    )
    for name in missing.missing_keys:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            deeper.get_parameter(name).zero_()
    return deeper


def _moved(name: str, old: int, new: int) -> str:
    """The name of a weight after `new - old` layers were put into the middle."""
    prefix, layer, rest = (
        re.fullmatch(r"(model\.layers\.)(\d+)(\..*)", name).groups()
        if ".layers." in name
        else (name, "", "")
    )
    return (
        f"{prefix}{int(layer) + (new - old if int(layer) >= old // 2 else 0)}{rest}"
        if layer
        else name
    )


class Circuits:
    """Weights put in before training, for a small training would spend most of its time on finding
    them.

    Planes of a head (size 64) are the pairs (i, i + 32), fastest first, as transformers lays them
    out.
    """

    def __init__(self, model: LlamaForCausalLM, length: float = 0.8) -> None:
        self.model, self.config = model, model.config
        self.size = model.config.head_dim
        theta = model.config.rope_parameters["rope_theta"]
        self.frequency = theta ** (-torch.arange(0, self.size, 2) / self.size)
        self.constant = nn.functional.normalize(torch.randn(self.config.hidden_size), dim=0)
        self.length = length
        self.code = self._frame(self.size)
        """(hidden, 64), orthonormal: layer 0 copies `code.T @ x` of a token from its neighbours."""
        self.places = self._frame(len(OFFSETS) * self.size).split(self.size, dim=1)
        """For each offset, (hidden, 64): where layer 0 writes the code of that neighbour."""

    def _frame(self, columns: int) -> Tensor:
        """Orthonormal columns (hidden, columns) without the constant direction; random ones where
        they do not fit.
        """
        hidden = self.config.hidden_size
        random = torch.randn(hidden, columns)
        random -= torch.outer(self.constant, self.constant @ random)
        return (
            torch.linalg.qr(random).Q
            if columns < hidden
            else nn.functional.normalize(random, dim=0)
        )

    @torch.no_grad()
    def install(self) -> None:
        """All else starts small, so that it does not drown what the circuits write."""
        for layer in self.model.model.layers:
            layer.mlp.down_proj.weight.mul_(0.1)
            layer.self_attn.o_proj.weight.mul_(0.1)
        self.look_back()
        self.copy_by_content(layer=self.config.num_hidden_layers // 2)

    def look_back(self, gap: float = 40.0) -> None:
        """Query heads of layer 0 attend to 1, 2, 3, 4 tokens back and write the code of the token
        there.

        A Llama has no biases, so one constant direction is added to every embedding; keys and
        queries of it differ by a rotation of `offset` positions. `gap` is the logit at the offset.
        Faster planes weigh more: they tell neighbours apart.
        """
        attention, embedding = (
            self.model.model.layers[0].self_attn,
            self.model.model.embed_tokens.weight,
        )
        embedding += self.length * self.constant
        normal = nn.functional.rms_norm(embedding, (self.config.hidden_size,))
        weight = self.frequency**0.25
        unit = torch.cat([weight.sqrt(), torch.zeros(self.size // 2)])
        scale = (gap * self.size**0.5 / weight.sum()) ** 0.5 / (normal @ self.constant).mean()
        wanted = (embedding - self.length * self.constant).norm(dim=1).mean()
        written = wanted / (normal @ self.code).norm(dim=1).mean()
        for head, offset in enumerate(OFFSETS):
            query, key, value, output = self._views(attention, head)
            turned = rotate(unit, -offset * self.frequency)
            query.mul_(0.3).add_(scale * torch.outer(turned, self.constant))
            if head % 2 == 0:
                key.mul_(0.3).add_(scale * torch.outer(unit, self.constant))
            value.copy_(self.code.T)
            output.copy_(written * self.places[head])

    def copy_by_content(self, layer: int, gap: float = 16.0, strength: float = 0.5) -> None:
        """KV head 0 of `layer` attends to where the tokens before are those that end here, and
        predicts the token there.

        The query codes the tokens 0, 1, 2, 3 back, the key those 1, 2, 3, 4 back, each with a
        random map into the slow planes, which positions hardly turn. `gap` is the logit when all
        four are the same.
        """
        attention = self.model.model.layers[layer].self_attn
        slow = (self.frequency * POSITIONS / 2 < 1.0).repeat(2)
        maps = [
            torch.randn(self.size, self.size) * slow[:, None] / slow.sum() ** 0.5 for _ in OFFSETS
        ]
        here = [self.code, *self.places[:-1]]
        asked = sum(m @ place.T for m, place in zip(maps, here, strict=True))
        found = sum(m @ place.T for m, place in zip(maps, self.places, strict=True))
        one = self.config.hidden_size / (2 + len(OFFSETS)) * self.size / self.config.hidden_size
        scale = (gap * self.size**0.5 / (one * len(OFFSETS))) ** 0.5
        copied = self._frame(self.size)
        for head in (0, 1):
            query, key, value, output = self._views(attention, head)
            query.copy_(scale * asked)
            key.copy_(scale * found)
            value.copy_(copied.T)
            output.copy_(strength * copied)

    def _views(self, attention: nn.Module, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The parts of the four projections that belong to a query head: (64, hidden) each, the
        output's (hidden, 64).
        """
        size, group = self.size, self.config.num_attention_heads // self.config.num_key_value_heads
        own = slice(head * size, (head + 1) * size)
        shared = slice(head // group * size, (head // group + 1) * size)
        return (
            attention.q_proj.weight[own],
            attention.k_proj.weight[shared],
            attention.v_proj.weight[shared],
            attention.o_proj.weight[:, own],
        )


def rotate(vector: Tensor, angle: Tensor) -> Tensor:
    """`vector` (size) turned by `angle` (size / 2) in each plane."""
    angle = torch.cat([angle, angle])
    first, second = vector.chunk(2)
    return vector * angle.cos() + torch.cat([-second, first]) * angle.sin()
