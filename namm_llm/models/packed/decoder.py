"""Decoder layers with packed weights as a few products: four calls and the attention.

transformers' layer runs some fifty operators, which cost more than the products of one row. Here
the norms, the rotation, the gate and the residual sums are part of the compiled products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from namm_llm.models.packed.linear import Gate, PackedLinear, fuse, rms_norm
from namm_llm.models.packed.weights import TiledWeights, library

_WITH_WINDOW = ("Mistral", "Qwen2", "Qwen3", "Gemma3", "Phi3")
_FAMILIES = ("Llama", *_WITH_WINDOW)
"""Families of transformers whose layers are known: names of their classes begin so."""
_GATES: dict[str, Gate] = {
    "SiLUActivation": "silu",
    "SiLU": "silu",
    "GELUTanh": "gelu_tanh",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """A root mean square norm."""

    weight: Tensor
    """float32 [width], as it is multiplied."""
    epsilon: float
    """Added to the mean square."""

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + norm(x), both [..., width] float32 or bfloat16 on the CPU."""
        x, residual = x.contiguous(), residual.contiguous()
        y, width = torch.empty_like(x), x.shape[-1]
        library().norm(
            x.data_ptr(),
            self.weight.data_ptr(),
            self.epsilon,
            residual.data_ptr(),
            y.data_ptr(),
            x.numel() // width,
            width,
            x.dtype is torch.bfloat16,
            torch.get_num_threads(),
        )
        return y


class Products(nn.Module):
    """What a fused layer computes with, besides its attention function."""

    def __init__(
        self,
        *,
        attention_input: PackedLinear,
        attention_output: PackedLinear,
        gate_up: PackedLinear,
        down: PackedLinear,
        head_norms: tuple[Norm | None, Norm | None],
        output_norms: tuple[Norm | None, Norm | None],
        heads: tuple[int, int],
        passes_window: bool,
    ) -> None:
        """Hold the parts.

        Args:
            attention_input: norm, then queries, keys and values.
            attention_output: the heads' outputs to the hidden state.
            gate_up: norm, then the gated product.
            down: back to the hidden state.
            head_norms: of each query head and of each key head, if the family has them.
            output_norms: of the attention's and of the gated product's output, before the sum
                (Gemma).
            heads: query heads; key and value heads.
            passes_window: whether the family hands its sliding window to the attention function.
        """
        super().__init__()
        self.attention_input, self.attention_output = attention_input, attention_output
        self.gate_up, self.down = gate_up, down
        self.output_norms = output_norms
        self.heads, self.passes_window = heads, passes_window
        self._norms = head_norms
        self.head_epsilon = next((norm.epsilon for norm in head_norms if norm), 0.0)

    @property
    def head_norms(self) -> tuple[int | None, int | None]:
        """Addresses of the weights of the norms of query heads and key heads."""
        query, key = self._norms
        return (
            None if query is None else query.weight.data_ptr(),
            None if key is None else key.weight.data_ptr(),
        )


class FusedLayer(nn.Module):
    """What is mixed into a decoder layer's class: the same function of the same arguments."""

    self_attn: Any
    products: Products

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """hidden_states [batch, tokens, width] to the same shape; see the family's own layer."""
        plain = hidden_states.requires_grad and torch.is_grad_enabled()
        if plain or hidden_states.dtype is torch.float16:
            found: Tensor = super().forward(
                hidden_states,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                **kwargs,
            )
            return found
        assert position_embeddings is not None
        products: Products = self.products
        heads = self._attend(
            hidden_states,
            position_embeddings,
            attention_mask,
            past_key_values,
            position_ids=position_ids,
            **kwargs,
        )
        after_attention, after_mlp = products.output_norms
        hidden = _add(products.attention_output, heads, hidden_states, after_attention)
        inner = products.gate_up.forward(hidden)
        return _add(products.down, inner, hidden, after_mlp)

    def _attend(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Any,
        **kwargs: Any,
    ) -> Tensor:
        """The heads' outputs side by side, [batch, tokens, heads * dim]."""
        attention, products = self.self_attn, self.products
        batch, tokens, _ = hidden.shape
        joined = products.attention_input.forward(hidden)
        rotate(joined, rotation, products, attention.head_dim)
        states = joined.view(batch, tokens, -1, attention.head_dim).transpose(1, 2)
        first, second = products.heads[0], sum(products.heads)
        query, key, value = states[:, :first], states[:, first:second], states[:, second:]
        if cache is not None:
            key, value = cache.update(key, value, attention.layer_idx)
        if products.passes_window:
            kwargs["sliding_window"] = _window_of(attention)
        function = _attention_function(attention.config)
        found, _ = function(
            attention, query, key, value, mask, dropout=0.0, scaling=attention.scaling, **kwargs
        )
        return found.reshape(batch, tokens, -1)


def fuse_layers(model: nn.Module) -> int:
    """Turn the decoder layers of a model whose maps are packed into fused ones; how many.

    Only for compiled kernels and known families. A layer keeps its modules, which share
    their memory with the fused products, and its class as a base class; gradients take its own way.
    """
    layers = [
        module for module in model.modules() if type(module).__name__.endswith("DecoderLayer")
    ]
    return sum(map(_fuse_layer, layers))


def rotate(
    joined: Tensor, rotation: tuple[Tensor, Tensor], products: Products, head_dim: int
) -> None:
    """Normalise (if the family does) and rotate queries and keys in place.

    joined: [batch, tokens, (heads + 2 key_heads) * dim], contiguous; rotation: cosines and sines
    [batch or 1, tokens, rotated dimensions].
    """
    cosines, sines = rotation
    if cosines.dtype is not joined.dtype or not cosines.is_contiguous():
        cosines = cosines.to(joined.dtype).contiguous()
    if sines.dtype is not joined.dtype or not sines.is_contiguous():
        sines = sines.to(joined.dtype).contiguous()
    width, turned = joined.shape[-1], cosines.shape[-1]
    library().rotate(
        joined.data_ptr(),
        cosines.data_ptr(),
        sines.data_ptr(),
        *products.head_norms,
        products.head_epsilon,
        joined.numel() // width,
        width,
        *products.heads,
        head_dim,
        turned,
        cosines.numel() // turned,
        joined.dtype is torch.bfloat16,
        torch.get_num_threads(),
    )


def _add(linear: PackedLinear, x: Tensor, residual: Tensor, norm: Norm | None) -> Tensor:
    """residual + linear(x), normalised before the sum if there is a norm."""
    if norm is None:
        return linear.forward(x, residual)
    return norm(linear.forward(x), residual)


def _fuse_layer(layer: nn.Module) -> bool:
    family = next((n for n in _FAMILIES if type(layer).__name__ == f"{n}DecoderLayer"), None)
    if family is None:
        return False
    products = _products_of(layer, family)
    if products is None:
        return False
    layer.products = products
    layer.__class__ = _fused_class(type(layer))
    return True


def _fused_class(family: type[nn.Module]) -> type[nn.Module]:
    """A subclass of the family's layer, so that whatever looks for the family's finds it."""
    return type(f"Packed{family.__name__}", (FusedLayer, family), {})


def _products_of(layer: Any, family: str) -> Products | None:
    """The products of a layer; None if a part is not packed or not known."""
    attention, mlp = layer.self_attn, layer.mlp
    inputs = _linears(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj"))
    inner = _linears(mlp, ("gate_up_proj",), ("gate_proj", "up_proj"))
    outputs = _linears(attention, ("o_proj",)), _linears(mlp, ("down_proj",))
    activation = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    gate = _GATES.get(type(activation).__name__)
    before = _norm_of(layer.input_layernorm)
    is_gemma = hasattr(layer, "pre_feedforward_layernorm")
    middle = layer.pre_feedforward_layernorm if is_gemma else layer.post_attention_layernorm
    between = _norm_of(middle)
    if not inputs or not inner or not all(outputs) or not gate or not before or not between:
        return None
    pair = _halves(inner[0]) if len(inner) == 1 else inner
    joined = fuse(inputs, norm=before.weight, epsilon=before.epsilon)
    gated = fuse(pair, norm=between.weight, epsilon=between.epsilon, gate=gate) if pair else None
    if joined is None or gated is None:
        return None
    outer = (layer.post_attention_layernorm, layer.post_feedforward_layernorm) if is_gemma else ()
    heads = attention.config.num_attention_heads
    return Products(
        attention_input=joined,
        attention_output=outputs[0][0],
        gate_up=gated,
        down=outputs[1][0],
        head_norms=(
            _norm_of(getattr(attention, "q_norm", None)),
            _norm_of(getattr(attention, "k_norm", None)),
        ),
        output_norms=(_norm_of(outer[0]), _norm_of(outer[1])) if outer else (None, None),
        heads=(heads, heads // attention.num_key_value_groups),
        passes_window=family in _WITH_WINDOW,
    )


def _linears(module: nn.Module, *choices: Sequence[str]) -> list[PackedLinear]:
    """The first choice of maps that the module has; none unless all have compiled kernels."""
    for names in choices:
        found = [getattr(module, name, None) for name in names]
        if all(isinstance(each, PackedLinear) for each in found):
            linears = cast(list[PackedLinear], found)
            tiled = all(isinstance(part, TiledWeights) for each in linears for part in each.weights)
            return linears if tiled else []
    return []


def _halves(joined: PackedLinear) -> list[PackedLinear]:
    """Gate and up of a map that holds both (Phi-3); none if they do not end at a tile's edge."""
    weights = joined.weights[0]
    assert isinstance(weights, TiledWeights)
    halves = weights.halves()
    if halves is None or joined.bias is not None:
        return []
    return [PackedLinear([half], exact=joined.exact) for half in halves]


def _norm_of(module: nn.Module | None) -> Norm | None:
    """A family's norm as weights and epsilon; None if it computes something else."""
    if module is None:
        return None
    weight, epsilon = (
        module.weight,
        getattr(module, "variance_epsilon", getattr(module, "eps", None)),
    )
    if not isinstance(weight, Tensor) or not isinstance(epsilon, float):
        return None
    x = torch.linspace(-1, 2, weight.numel()).to(weight.dtype)
    for candidate in (weight.detach().float().clone(), 1 + weight.detach().float()):
        if torch.allclose(rms_norm(x, candidate, epsilon), module(x), rtol=1e-2, atol=1e-6):
            return Norm(weight=candidate, epsilon=epsilon)
    return None


def _window_of(attention: Any) -> int | None:
    """The sliding window of one layer, as its family hands it on."""
    if hasattr(attention, "sliding_window"):
        return cast("int | None", attention.sliding_window)
    return cast("int | None", getattr(attention.config, "sliding_window", None))


def _attention_function(config: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.llama.modeling_llama import eager_attention_forward

    found: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
        config._attn_implementation, eager_attention_forward
    )
    return found
