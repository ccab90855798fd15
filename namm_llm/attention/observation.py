"""The attention that stored tokens received, recomputed from the queries and their log-sum-exp; no attention matrix is ever kept.

`p = exp(q k / sqrt(d) - lse)`, mean over the query heads of the group: exact with any fused attention, for as few queries at a time as one
likes. Works on one KV head. What policies ask for (`total`, `spectrogram`, `most_again`) is one fused pass on a GPU, see `kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from namm_llm.attention import kernels
from namm_llm.attention.rotation import Rotation
from namm_llm.namm.spectrogram import Spectrogram

BLOCK = 128  # queries at a time: R x BLOCK x N float32 probabilities, small enough to stay near the processor


@dataclass(frozen=True)
class Observation:
    """What the newest queries paid to the N stored tokens of one KV head.

    queries: `[R, Q, D]`, rotated. lse: `[R, Q]`, float32, as it was when the query ran. keys: `[N, D]`, any float type. positions: `[N]`,
    ascending. stop: position after the last query, so that the queries stand at `first .. stop - 1`. fresh: position of the first query
    since the last update; older ones were carried over. rotation: the model's, for `again`.
    """

    queries: Tensor
    lse: Tensor
    keys: Tensor
    positions: Tensor
    scale: float
    stop: int
    fresh: int
    rotation: Rotation | None = None

    @property
    def first(self) -> int:
        """Position of the oldest query that is still known."""
        return self.stop - self.queries.shape[1]

    @cached_property
    def _float_keys(self) -> Tensor:
        return self.keys.float()

    def total(self, start: int, stop: int) -> Tensor:
        """Group-mean attention `[N]`, float32, summed over the queries at those positions."""
        if kernels.usable(self.keys):
            from namm_llm.attention.kernels.observe import total

            return total(self.queries, self.lse, self.keys, self.positions, scale=self.scale, first=self.first, start=start, stop=stop)
        found = self.lse.new_zeros(self.positions.shape[0])
        for rows in self.blocks(start, stop):
            found += rows.sum(0)
        return found

    def spectrogram(self, settings: Spectrogram, ema: Tensor, peak: Tensor | None = None) -> Tensor:
        """The averages `[N, bins]`, float32, after every hop that is whole by now and was not before; `peak` is raised in place."""
        hop = settings.hop
        start, stop = (at // hop * hop for at in (self.fresh, self.stop))
        if start == stop:
            return ema
        if kernels.usable(self.keys) and kernels.takes_hop(hop):
            from namm_llm.attention.kernels.observe import spectrogram

            parts = (self.queries, self.lse, self.keys, self.positions)
            return spectrogram(settings, ema, peak, *parts, scale=self.scale, first=self.first, start=start, stop=stop)
        left = self.rows(start - hop, start)
        for rows in self.blocks(start, stop, BLOCK // hop * hop or hop):
            rows = torch.cat([left, rows])
            ema = settings.update(ema, rows, peak)
            left = rows[-hop:]
        return ema

    def most_again(self, start: int, stop: int) -> Tensor:
        """The most attention `[N]`, float32, that any of these queries would pay (see `again`)."""
        if kernels.usable(self.keys):
            from namm_llm.attention.kernels.reread import most

            return most(self._turned(start, stop), self.keys, scale=self.scale)
        return torch.stack([attention.amax((0, 1)) for attention in self.again(start, stop)]).amax(0)

    def rows(self, start: int, stop: int) -> Tensor:
        """Group-mean attention `[stop - start, N]`, float32, of the queries at those positions; 0 before the text's beginning.

        The whole row of a query that ran before an eviction is what the tokens that are left received then.
        """
        if start < 0:
            return torch.cat([self.lse.new_zeros(-start, self.positions.shape[0]), self.rows(0, stop)])
        assert self.first <= start <= stop <= self.stop, "queries that were not carried over"
        window = slice(start - self.first, stop - self.first)
        query, lse = self.queries[:, window].float(), self.lse[:, window]
        logits = torch.matmul(query * self.scale, self._float_keys.T)
        mean = logits.sub_(lse[..., None]).exp_().mean(0)
        # at most self.stop - start tokens are newer than the first of these queries, and they are the last ones
        newest = min(self.stop - start, self.positions.shape[0])
        if newest:
            at = torch.arange(start, stop, device=mean.device)
            mean[:, -newest:].masked_fill_(self.positions[None, -newest:] > at[:, None], 0.0)
        return mean

    def blocks(self, start: int, stop: int, size: int = BLOCK) -> Iterator[Tensor]:
        """`rows` of consecutive queries, `size` at a time."""
        for at in range(start, stop, size):
            yield self.rows(at, min(at + size, stop))

    def again(self, start: int, stop: int, size: int = BLOCK) -> Iterator[Tensor]:
        """The attention `[R, at most size, N]`, float32, that the queries of `start .. stop - 1` would pay if the text since the last
        update came once more right after itself: they are turned to those positions and see all N tokens, their own future included.
        """
        for block in torch.split(self._turned(start, stop) * self.scale, size, dim=1):
            yield torch.matmul(block, self._float_keys.T).softmax(-1)

    def _turned(self, start: int, stop: int) -> Tensor:
        """Queries `[R, at most stop - start, D]`, float32, at their second positions."""
        assert self.rotation is not None, "the cache was not made for a policy that reads again"
        return self.rotation.turn(self.queries[:, max(start, self.first) - self.first : stop - self.first], self.stop - self.fresh)
