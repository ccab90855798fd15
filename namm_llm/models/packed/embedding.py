"""An embedding whose table stays packed: rows are expanded as they are looked up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from namm_llm.models.packed.int4 import portable
from namm_llm.models.packed.linear import PackedLinear
from namm_llm.models.packed.weights import PackedWeights


class PackedEmbedding(nn.Module):
    """Embeddings of tokens from a packed table [tokens, width]. On a CPU only."""

    def __init__(
        self, weights: PackedWeights, *, dtype: torch.dtype = torch.float32, scale: float = 1.0
    ) -> None:
        """dtype: of the embeddings; scale: what they are multiplied by (Gemma), in that dtype."""
        super().__init__()
        self.num_embeddings, self.embedding_dim = weights.rows, weights.columns
        self.weights = weights
        self.dtype, self.scale = dtype, scale

    def forward(self, ids: Tensor) -> Tensor:
        """Integers [...] to embeddings [..., width]. IndexError if a token is out of range."""
        found = self.weights.take(ids.reshape(-1), self.dtype).view(*ids.shape, self.embedding_dim)
        return found if self.scale == 1.0 else found * torch.tensor(self.scale, dtype=self.dtype)

    def head(self, bias: Tensor | None = None) -> PackedLinear:
        """The linear map with the same weights, in the same memory: a tied head."""
        return PackedLinear([self.weights], bias)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.weights = portable(self.weights)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.dtype}"
