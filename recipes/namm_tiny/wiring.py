"""A wider Llama around a trained one, and what it takes to wire heads and units by hand in the room beside it.

The old weights read only the old channels; what is wired reads only the new ones, until it says something. So what the model knew is
kept by construction. Compiled transformers: Lindner et al. 2023, arXiv 2301.05062.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

Row = Mapping[str, float]
"""A sum of channels, each with a weight."""
HEADS = 2
"""New query heads a layer, with one KV head of their own."""
UNIT = 1 / 16
"""How large a 1 is in a new channel, beside old states of length 2 to 150: small, so that the norms hardly notice. Powers of two here and
in `STEEP`, so that rounding to bfloat16 changes nothing between two channels."""
STEEP = 16.0
"""Times this, silu is as good as a ramp."""


KEEP_UNQUANTIZED = ["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Layers whose wired numbers are thousands of times their trained ones, so that 4 or 8 bits cannot hold both."""


@dataclass(frozen=True)
class Channels:
    """Names of new channels. A name with a size stands for `name0`, `name1`, ..."""

    index: dict[str, int]

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> Channels:
        names = [name if size == 1 else f"{name}{i}" for name, size in sizes.items() for i in range(size)]
        return cls({name: i for i, name in enumerate(names)})

    def row(self, parts: Row) -> Tensor:
        row = torch.zeros(len(self.index))
        for name, weight in parts.items():
            row[self.index[name]] += weight
        return row


@dataclass
class Layer:
    """The new rows and columns of one layer while they are wired. Sums are over `channels`, as the norms hand them on: a 1 reads as 1."""

    channels: Channels
    frequency: Tensor
    query: list[Tensor] = field(default_factory=list)
    """For each head (head size, channels)."""

    def __post_init__(self) -> None:
        size, width = 2 * len(self.frequency), len(self.channels.index)
        self.query = [torch.zeros(size, width) for _ in range(HEADS)]
        self.key, self.value = torch.zeros(size, width), torch.zeros(size, width)
        self.output = [torch.zeros(width, size) for _ in range(HEADS)]
        self.gates: list[Tensor] = []
        self.ups: list[Tensor] = []
        self.downs: list[Tensor] = []
        self.said: dict[int, Tensor] = {}
        """For each head (old channels, head size): what it adds to the old channels."""
        self.told: list[tuple[int, Tensor]] = []
        """Units and what they add to the old channels."""
        self.values = 0

    def match(self, head: int, dim: int, query: Row, key: Row | None = None) -> None:
        """Adds `query` times `key` to a head's logits. Dims d and d + size / 2 are one plane; the last planes hardly turn.

        `key` is None where another head has wired it.
        """
        size = len(self.key)
        self.query[head][dim] += self.channels.row(query) * size**0.5
        if key is not None:
            self.key[dim] = self.channels.row(key)

    def near(self, head: int, weights: Mapping[int, float], strength: float, query: Row, key: str, back: float = 0.0) -> None:
        """Adds strength * (sum of weights * cos(frequency * (distance - back))) for each plane. The key is the same for all heads."""
        size, half = len(self.key), len(self.frequency)
        row = self.channels.row(query) * size**0.5 * strength
        for plane, weight in weights.items():
            angle = back * self.frequency[plane]
            self.query[head][plane] += row * weight * angle.cos()
            self.query[head][plane + half] -= row * weight * angle.sin()
            self.key[plane] = self.channels.row({key: 1.0})

    def fetch(self, heads: Sequence[int], source: str, targets: Sequence[str | None], weight: float = 1.0) -> None:
        """Copies channel `source` (a sum, with "+") of where each of the heads looks into the channel of the same place in `targets`."""
        self.value[self.values] = self.channels.row(dict.fromkeys(source.split("+"), 1.0))
        for head, target in zip(heads, targets, strict=True):
            if target is not None:
                self.output[head][self.channels.index[target], self.values] += weight * UNIT
        self.values += 1

    def say(self, head: int, source: str, direction: Tensor) -> None:
        """Adds channel `source` of where the head looks to the old channels, along `direction`."""
        said = self.said.setdefault(head, torch.zeros(len(direction), len(self.key)))
        self.value[self.values] = self.channels.row({source: 1.0})
        said[:, self.values] = direction
        self.values += 1

    def unit(self, gate: Row, up: Row, down: Row) -> None:
        """silu(gate) * up, into `down`."""
        self.gates.append(self.channels.row(gate))
        self.ups.append(self.channels.row(up))
        self.downs.append(self.channels.row(down) * UNIT)

    def gated(self, gate: Row, up: Row, down: Row) -> None:
        """`up` where `gate` is 0.5 (half as much at 0.25 ...) and nothing where it is -0.5 or less."""
        self.unit({name: 2 * STEEP * w for name, w in gate.items()}, up, {name: w / STEEP for name, w in down.items()})

    def step(self, rise: Row, one: str, up: Row, down: Row) -> None:
        """0 where `rise` is below 0, `up` where it is above `one`, and linear between. `one` is not in `rise`: bfloat16 would lose it
        beside large weights."""
        high = {name: STEEP * w for name, w in rise.items()}
        self.unit(high, up, {name: w / STEEP for name, w in down.items()})
        self.unit({**high, one: -STEEP}, up, {name: -w / STEEP for name, w in down.items()})

    def tell(self, gate: Row, up: Row, direction: Tensor) -> None:
        """A unit that writes into the old channels."""
        self.told.append((len(self.gates), direction))
        self.unit(gate, up, {})


@torch.no_grad()
def lengths(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """The length of the states that each norm of the layers reads: (norms, tokens)."""
    read: list[Tensor] = []
    hooks = [
        norm.register_forward_pre_hook(lambda _, states: read.append(states[0][0].norm(dim=-1)))
        for layer in model.model.layers
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    ]
    model.model(ids[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(read)


@torch.no_grad()
def widen(model: LlamaForCausalLM, layers: Sequence[Layer], embedding: Tensor, typical: Tensor) -> LlamaForCausalLM:
    """The model with what was wired beside it.

    `embedding`: (vocabulary, channels), what each token begins with. `typical`: (norms), the length of the states that each norm reads;
    there a new channel of UNIT reads as 1.
    """
    old = model.config
    if old.num_attention_heads != HEADS * old.num_key_value_heads:
        raise ValueError(f"only models with {HEADS} query heads for each KV head can be widened")
    channels, units = len(layers[0].channels.index), -(-max(len(layer.gates) for layer in layers) // 32) * 32
    config = LlamaConfig.from_dict(old.to_dict())
    config.hidden_size += channels
    config.intermediate_size += units
    config.num_attention_heads += HEADS
    config.num_key_value_heads += 1
    config.wired = {"channels": channels, "units": units, "heads": HEADS}
    config.keep_unquantized = KEEP_UNQUANTIZED
    wide = LlamaForCausalLM(config).to(next(model.parameters()).dtype)
    wide.generation_config = model.generation_config
    width, shrunk = old.hidden_size, (old.hidden_size / config.hidden_size) ** 0.5
    for (name, weight), before in zip(wide.named_parameters(), model.parameters(), strict=True):
        weight.zero_()
        if weight.ndim == 1:
            weight[: len(before)] = before * shrunk
        else:
            weight[: before.shape[0], : before.shape[1]] = before
        if name.endswith("embed_tokens.weight"):
            weight[:, width:] = embedding
    heard = typical / config.hidden_size**0.5 / UNIT
    for i, (layer, wired) in enumerate(zip(wide.model.layers, layers, strict=True)):
        layer.input_layernorm.weight[width:] = heard[2 * i]
        layer.post_attention_layernorm.weight[width:] = heard[2 * i + 1]
        _attention(layer.self_attn, wired, width, old.num_attention_heads * config.head_dim)
        _units(layer.mlp, wired, width, old.intermediate_size)
    return wide


@torch.no_grad()
def unwired(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model without what `widen` added, to be trained further; as it is if nothing was."""
    added = getattr(model.config, "wired", None)
    if added is None:
        return model
    config = LlamaConfig.from_dict(
        {name: value for name, value in model.config.to_dict().items() if name not in ("wired", "keep_unquantized")}
    )
    config.hidden_size -= added["channels"]
    config.intermediate_size -= added["units"]
    config.num_attention_heads -= added["heads"]
    config.num_key_value_heads -= 1
    narrow = LlamaForCausalLM(config).to(next(model.parameters()).dtype)
    narrow.generation_config = model.generation_config
    shrunk = (config.hidden_size / model.config.hidden_size) ** 0.5
    for weight, wide in zip(narrow.parameters(), model.parameters(), strict=True):
        weight.copy_(wide[: len(weight)] / shrunk if weight.ndim == 1 else wide[: weight.shape[0], : weight.shape[1]])
    return narrow


def _attention(attention: nn.Module, wired: Layer, width: int, heads: int) -> None:
    attention.q_proj.weight[heads:, width:] = torch.cat(wired.query)
    attention.k_proj.weight[-len(wired.key) :, width:] = wired.key
    attention.v_proj.weight[-len(wired.value) :, width:] = wired.value
    attention.o_proj.weight[width:, heads:] = torch.cat(wired.output, dim=1)
    for head, said in wired.said.items():
        begin = heads + head * len(wired.key)
        attention.o_proj.weight[:width, begin : begin + len(wired.key)] = said


def _units(mlp: nn.Module, wired: Layer, width: int, units: int) -> None:
    for i, (gate, up, down) in enumerate(zip(wired.gates, wired.ups, wired.downs, strict=True), units):
        mlp.gate_proj.weight[i, width:], mlp.up_proj.weight[i, width:], mlp.down_proj.weight[width:, i] = gate, up, down
    for unit, direction in wired.told:
        mlp.down_proj.weight[:width, units + unit] = direction
