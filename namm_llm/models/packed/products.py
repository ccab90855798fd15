"""The products of a decoder layer with packed weights, and the steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from namm_llm.models.packed.linear import Gate, PackedLinear, fuse, rms_norm
from namm_llm.models.packed.weights import TiledWeights, check, library

_GATES: dict[str, Gate] = {"SiLUActivation": "silu", "SiLU": "silu", "GELUTanh": "gelu_tanh"}


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
        failed = library().norm(
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
        check(failed)
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
    failed = library().rotate(
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
    check(failed)


def add(linear: PackedLinear, x: Tensor, residual: Tensor, norm: Norm | None) -> Tensor:
    """residual + linear(x), normalised before the sum if there is a norm."""
    if norm is None:
        return linear.forward(x, residual)
    return norm(linear.forward(x), residual)


def products_of(layer: Any, *, passes_window: bool) -> Products | None:
    """The products of a layer; None if a part is not packed or not known."""
    attention, mlp = layer.self_attn, layer.mlp
    inputs = _linears(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj"))
    inner = _linears(mlp, ("gate_up_proj",), ("gate_proj", "up_proj"))
    outputs = _linears(attention, ("o_proj",)), _linears(mlp, ("down_proj",))
    activation = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    gate = _GATES.get(type(activation).__name__)
    before = norm_of(layer.input_layernorm)
    is_gemma = hasattr(layer, "pre_feedforward_layernorm")
    middle = layer.pre_feedforward_layernorm if is_gemma else layer.post_attention_layernorm
    between = norm_of(middle)
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
            norm_of(getattr(attention, "q_norm", None)),
            norm_of(getattr(attention, "k_norm", None)),
        ),
        output_norms=(norm_of(outer[0]), norm_of(outer[1])) if outer else (None, None),
        heads=(heads, heads // attention.num_key_value_groups),
        passes_window=passes_window,
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


def norm_of(module: nn.Module | None) -> Norm | None:
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
