"""What every layer of ours tells transformers: attention gets a handle on the tokens
(`ManagedKeys`), so there is no dense mask.
"""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class HandleLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Says how long it is in `get_seq_length`, and returns its handle in `update`."""

    is_sliding = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the first tokens tell shapes, types and the device."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that a dense mask would have; ours is never built."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1
