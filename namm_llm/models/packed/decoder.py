"""Decoder layers with packed weights as a few products: four calls and the attention.

transformers' layer runs some fifty operators, which cost more than the products of one row. Here
the norms, the rotation, the gate and the residual sums are part of the compiled products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from namm_llm.models.packed.products import Products, add, products_of, rotate

_WITH_WINDOW = ("Mistral", "Qwen2", "Qwen3", "Gemma3", "Phi3")
FAMILIES = ("Llama", *_WITH_WINDOW)
"""Families of transformers whose layers are known: names of their classes begin so."""


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
        hidden = add(products.attention_output, heads, hidden_states, after_attention)
        inner = products.gate_up.forward(hidden)
        return add(products.down, inner, hidden, after_mlp)

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


def _fuse_layer(layer: nn.Module) -> bool:
    family = next((n for n in FAMILIES if type(layer).__name__ == f"{n}DecoderLayer"), None)
    if family is None:
        return False
    products = products_of(layer, passes_window=family in _WITH_WINDOW)
    if products is None:
        return False
    layer.products = products
    layer.__class__ = _fused_class(type(layer))
    return True


def _fused_class(family: type[nn.Module]) -> type[nn.Module]:
    """A subclass of the family's layer, so that whatever looks for the family's finds it."""
    return type(f"Packed{family.__name__}", (FusedLayer, family), {})


def _window_of(attention: Any) -> int | None:
    """The sliding window of one layer, as its family hands it on."""
    if hasattr(attention, "sliding_window"):
        found: int | None = attention.sliding_window
        return found
    return getattr(attention.config, "sliding_window", None)


def _attention_function(config: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.llama.modeling_llama import eager_attention_forward

    found: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
        config._attn_implementation, eager_attention_forward
    )
    return found
