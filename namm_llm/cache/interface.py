"""The seam with transformers: an attention function and a mask function, registered under
`IMPLEMENTATION`.

The cache hands its keys to the attention function as `ManagedKeys`, so that attention finds the
storage without a global, a hook or an attribute on a module. With any other cache, or none, the
same model falls back to transformers' own SDPA.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from namm_llm.errors import CacheError

IMPLEMENTATION = "namm_llm"
_UNSUPPORTED = {
    "softcap": "attention soft-capping",
    "s_aux": "learned attention sinks",
    "position_bias": "a position bias",
}


class ManagedKeys(ABC):
    """What a managed layer returns from `Cache.update` in the place of the keys."""

    @abstractmethod
    def attend(self, query: Tensor, padding: Tensor | None, scale: float) -> Tensor:
        """Attention output `[B, T, H, D]` of queries `[B, H, T, D]`; padding: bool `[B, T]`, false
        at padding, or None.
        """


class DeferredMask:
    """The 2D padding mask, and the 4D mask for whoever needs one; the latter is built when it is
    first asked for.
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
    """Mask function: keeps the padding of the new columns, builds nothing."""
    padding = None
    if attention_mask is not None:
        padding = attention_mask[:, -q_length:].to(torch.bool)
        if bool(padding.all()):
            padding = None

    def build() -> Tensor | None:
        return sdpa_mask(**kwargs, q_length=q_length, attention_mask=attention_mask)

    return DeferredMask(padding, build)


def managed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor | ManagedKeys,
    value: Tensor,
    attention_mask: DeferredMask | Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function: over the managed storage if the cache is ours, else transformers' SDPA."""
    if not isinstance(key, ManagedKeys):
        dense = (
            attention_mask.dense() if isinstance(attention_mask, DeferredMask) else attention_mask
        )
        out, _ = sdpa_attention_forward(
            module, query, key, value, dense, dropout=dropout, scaling=scaling, **kwargs
        )
        return out, None
    for name, meaning in _UNSUPPORTED.items():
        if kwargs.get(name) is not None:
            raise CacheError(
                f"{type(module).__name__} uses {meaning}, which the evicting cache cannot do; use transformers' own cache"
            )
    if isinstance(attention_mask, Tensor):
        raise CacheError(
            "a 4D attention mask cannot be combined with an evicting cache; pass a 2D padding mask or none"
        )
    padding = attention_mask.padding if attention_mask is not None else None
    return key.attend(
        query, padding, scaling if scaling is not None else query.shape[-1] ** -0.5
    ), None


AttentionInterface.register(IMPLEMENTATION, managed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, managed_mask)
