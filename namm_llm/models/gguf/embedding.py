"""An embedding table that stays packed: only the rows of the tokens at hand are expanded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from namm_llm.models.gguf.blocks import dequantize


class BlockEmbedding(nn.Module):
    """Looks up rows of packed blocks.

    On a CPU the table may be the mapped file itself: only rows that were used take memory.
    """

    def __init__(
        self, rows: Tensor, type_name: str, shape: tuple[int, int], scale: float, dtype: torch.dtype
    ) -> None:
        """Hold the table.

        Args:
            rows: packed bytes [tokens, row_bytes] (uint8).
            type_name: their ggml type.
            shape: (tokens, width).
            scale: what every embedding is multiplied by.
            dtype: of the embeddings that come out.
        """
        super().__init__()
        self.num_embeddings, self.embedding_dim = shape
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.type_name = type_name
        self.scale = scale
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [...] to embeddings [..., width]."""
        found = dequantize(self.weight[ids], self.type_name, self.dtype)
        # in the dtype of the result, as Gemma's own table multiplies
        return found if self.scale == 1.0 else found * torch.tensor(self.scale, dtype=self.dtype)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.type_name}"
