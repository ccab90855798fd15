"""The seam with transformers: an attention function and a mask function, registered under
`IMPLEMENTATION`, and where a model's layers compute.

The cache hands its keys to the attention function as `PendingKeys`, so that attention finds the
storage without a global, a hook or an attribute on a module. With any other cache, or none, the
same model falls back to transformers' own SDPA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from namm_llm.errors import CacheError, ModelError

IMPLEMENTATION = "namm_llm"
_UNSUPPORTED = {
    "softcap": "attention soft-capping",
    "s_aux": "learned attention sinks",
    "position_bias": "a position bias",
}


@dataclass(frozen=True)
class PendingKeys:
    """New tokens on their way from `Cache.update` to the attention function, in the place of the
    keys.
    """

    keys: Tensor
    """`[B, G, T, D]`."""
    values: Tensor
    """`[B, G, T, D]`."""
    store: Callable[[Tensor, Tensor, Tensor, Tensor | None, float, Tensor | None], Tensor]
    """Stores the tokens and attends: queries `[B, H, T, D]`, keys, values, padding (bool `[B, T]`,
    false at padding, or None), scale and the positions `[B, T]` at which the model rotated queries
    and keys (or None) to output `[B, T, H, D]`.
    """

    def attend(
        self, query: Tensor, padding: Tensor | None, scale: float, positions: Tensor | None
    ) -> Tensor:
        """Attention output `[B, T, H, D]` of queries `[B, H, T, D]`."""
        return self.store(query, self.keys, self.values, padding, scale, positions)


class PendingLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Base of the layers that hand attention `PendingKeys`, so that there is no dense mask.

    A subclass says how long it is in `get_seq_length`.
    """

    is_sliding = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the first tokens tell shapes, types and the device."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that a dense mask would have; ours is never built."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class DeferredMask:
    """The 2D padding mask, and the 4D mask of other caches, which is built when it is first asked
    for.
    """

    def __init__(self, padding: Tensor | None, build: Callable[[], Tensor | None]) -> None:
        self.padding = padding
        self._build = build
        self._dense: Tensor | None = None
        self._is_built = False

    def dense(self) -> Tensor | None:
        """The mask as transformers' SDPA wants it."""
        if not self._is_built:
            self._dense, self._is_built = self._build(), True
        return self._dense


def managed_mask(
    *, q_length: int, attention_mask: Tensor | None = None, **kwargs: Any
) -> DeferredMask:
    """Mask function: keeps the padding of the new columns, builds nothing. Raises CacheError if
    there are no new tokens.
    """
    if not q_length:
        raise CacheError(
            "the cache holds all of these tokens already, so there is nothing to compute; give at "
            "least one more token, or begin with a new cache."
        )
    padding = None
    if attention_mask is not None:
        padding = attention_mask[:, -q_length:].to(torch.bool)
        if bool(padding.all()):
            padding = None

    def build() -> Tensor | None:
        return sdpa_mask(**kwargs, q_length=q_length, attention_mask=attention_mask)

    return DeferredMask(padding, build)


def managed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor | PendingKeys,
    value: Tensor,
    attention_mask: DeferredMask | Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function: over the managed storage if the cache is ours, else transformers' SDPA.

    Raises CacheError for kinds of attention that the managed storage cannot compute.
    """
    if not isinstance(key, PendingKeys):
        if isinstance(attention_mask, DeferredMask):
            attention_mask = attention_mask.dense()
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return out, None
    for name, meaning in _UNSUPPORTED.items():
        if kwargs.get(name) is not None:
            raise CacheError(
                f"{type(module).__name__} uses {meaning}, which the evicting cache cannot do; use "
                "transformers' own cache."
            )
    if isinstance(attention_mask, Tensor):
        raise CacheError(
            "a 4D attention mask cannot be combined with an evicting cache; pass a 2D padding mask "
            "or none."
        )
    padding = attention_mask.padding if attention_mask is not None else None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return key.attend(query, padding, scale, kwargs.get("position_ids")), None


AttentionInterface.register(IMPLEMENTATION, managed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, managed_mask)


def prepare_model(model: PreTrainedModel) -> None:
    """Switch the model to our attention function; with other caches it keeps working through
    transformers' SDPA.

    Raises ModelError for a model that cannot use it.
    """
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder model; the evicting cache is for "
            "decoders."
        )
    if model.config._attn_implementation != IMPLEMENTATION:
        if not model._can_set_attn_implementation():
            raise ModelError(
                f"{type(model).__name__} does not support transformers' attention interface, which "
                "the evicting cache needs."
            )
        model.set_attn_implementation(IMPLEMENTATION)


def device_of(module: nn.Module) -> torch.device:
    """Where the module computes: where its first weights are, or where accelerate brings them.

    A device map (`device_map="auto"`) spreads a model over several cards; accelerate's hooks then
    bring tensors, and weights that are kept elsewhere, to the device of a layer.
    """
    for part in module.modules():
        for weight in part.parameters(recurse=False):
            at = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
            return weight.device if at is None else torch.device(at)
    return torch.device("cpu")


def layer_devices(model: PreTrainedModel) -> dict[int, torch.device]:
    """The device of each layer of the decoder, by its number."""
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
    numbered = [(getattr(module, "layer_idx", None), module) for module in decoder.modules()]
    return {number: device_of(module) for number, module in numbered if isinstance(number, int)}
