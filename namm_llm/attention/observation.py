"""The attention that stored tokens received, recomputed from the queries and their log-sum-exp; no
attention matrix is ever kept.

`p = exp(q k / sqrt(d) - lse)`, mean over the query heads of the group: exact with any fused
attention, for as few queries at a time as one likes. Works on one KV head. What policies ask for
(`total`, `spectrogram`, `max_replayed_attention`) is one fused pass on a GPU, see `kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from namm_llm.attention import backend as kernels
from namm_llm.attention import precision
from namm_llm.attention.rope import Rotation
from namm_llm.attention.scratch import Scratch
from namm_llm.namm.spectrogram import Spectrogram

BLOCK_FLOATS = 2**18  # probabilities that a core works on at a time: 1 MiB, its own cache
_FEWEST_ROWS = 64  # of a matrix product that is not held up by reading the keys
# lengths are rounded up to it: for each new size oneDNN compiles a product in bfloat16, and keeps
# it
_COLUMNS = 256


def _floats() -> int:
    """Probabilities that all cores together work on at a time."""
    return BLOCK_FLOATS * torch.get_num_threads()


@dataclass(frozen=True)
class Observation:
    """What the newest queries paid to the N stored tokens of one KV head.

    queries: `[R, Q, D]`, rotated. lse: `[R, Q]`, float32, as it was when the query ran. keys: `[N,
    D]`, any float type. positions: `[N]`, ascending. stop: position after the last query, so that
    the queries stand at `first .. stop - 1`. fresh: position of the first query since the last
    update; older ones were carried over. rotation: the model's, for `again`. scratch: memory that
    the heads of a layer use one after the other. probes: what probes paid, which stand behind the
    text, if any were run.
    """

    queries: Tensor
    lse: Tensor
    keys: Tensor
    positions: Tensor
    scale: float
    stop: int
    fresh: int
    rotation: Rotation | None = None
    scratch: Scratch = field(default_factory=Scratch)
    probes: Observation | None = None

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
            from namm_llm.attention.triton.observe import total

            return total(
                self.queries,
                self.lse,
                self.keys,
                self.positions,
                scale=self.scale,
                first=self.first,
                start=start,
                stop=stop,
            )
        size, found = self._block(), self.lse.new_zeros(self.positions.shape[0])
        room = self._room(size)
        for at in range(start, stop, size):
            found += self._rows(at, min(at + size, stop), len(found), room).sum(0)
        return found

    def spectrogram(self, settings: Spectrogram, ema: Tensor, peak: Tensor | None = None) -> Tensor:
        """The averages `[N, width]`, float32, after every hop that is whole by now and was not
        before; `peak` is raised in place.
        """
        hop = settings.hop
        start, stop = (at // hop * hop for at in (self.fresh, self.stop))
        if start == stop:
            return ema
        if kernels.usable(self.keys) and kernels.takes_hop(hop):
            from namm_llm.attention.triton.observe import spectrogram

            parts = (self.queries, self.lse, self.keys, self.positions)
            averages = [
                spectrogram(
                    one,
                    average,
                    peak,
                    *parts,
                    scale=self.scale,
                    first=self.first,
                    start=start,
                    stop=stop,
                )
                for one, average in zip(
                    settings.each(), ema.chunk(len(settings.decays), 1), strict=True
                )
            ]
            return torch.cat(averages, 1)
        ema, left = ema.float().clone(), self.rows(start - hop, start)
        size = self._block(hop)
        room = self._room(size)
        for at in range(start, stop, size):
            to = min(at + size, stop)
            born = int(
                torch.searchsorted(self.positions, to)
            )  # those that are newer were paid nothing yet
            rows = torch.cat([left[:, :born], self._rows(at, to, born, room)])
            ema[:born] = settings.update(ema[:born], rows, None if peak is None else peak[:born])
            left = torch.nn.functional.pad(rows[-hop:], (0, self.positions.shape[0] - born))
        return ema

    def most(self) -> Tensor:
        """The most attention `[N]`, float32, that any known query of any head paid, all of them
        behind all tokens.
        """
        queries = (self.queries.float() * self.scale).flatten(0, 1)
        found = self.lse.new_full((self.positions.shape[0],), -torch.inf)
        for block, lse in zip(
            torch.split(queries, _FEWEST_ROWS),
            torch.split(self.lse.flatten(), _FEWEST_ROWS),
            strict=True,
        ):
            torch.maximum(found, (block @ self._float_keys.T).sub_(lse[:, None]).amax(0), out=found)
        return found.exp_()

    def max_replayed_attention(self, start: int, stop: int) -> Tensor:
        """The most attention `[N]`, float32, that any of these queries would pay (see `again`)."""
        if kernels.usable(self.keys):
            from namm_llm.attention.triton import replay

            return replay.most(self._turned(start, stop), self.keys, scale=1.0)
        dtype = precision.reading_type(self.keys.device)
        queries, count = self._turned(start, stop).flatten(0, 1).to(dtype), len(self.keys)
        keys = queries.new_zeros(max(1, -(-count // _COLUMNS)) * _COLUMNS, queries.shape[-1])
        keys[:count] = self.keys
        size = max(_FEWEST_ROWS, _floats() * 4 // (dtype.itemsize * len(keys)))
        room = self.scratch.numbers(min(size, len(queries)) * len(keys), keys)
        found = keys.new_full((len(keys),), -torch.inf)
        for block in torch.split(queries, size):
            logits = torch.mm(
                block, keys.T, out=room[: len(block) * len(keys)].view(len(block), len(keys))
            )
            logits[:, count:] = -torch.inf
            # the largest logarithm first: then one exponential for each token, not one more pass
            # over all of them
            torch.maximum(found, torch.log_softmax(logits, -1, out=logits).amax(0), out=found)
        return found[:count].float().exp_()

    def _block(self, multiple: int = 1) -> int:
        """Queries at a time, a multiple of so many."""
        return (
            max(
                1, _floats() // (self.queries.shape[0] * max(1, self.positions.shape[0]) * multiple)
            )
            * multiple
        )

    def _room(self, size: int) -> Tensor:
        """Floats for the probabilities of `size` queries: allocated once, because fresh memory
        costs as much as what is computed in it.
        """
        return self.scratch.numbers(
            self.queries.shape[0] * size * self.positions.shape[0], self.lse
        )

    def rows(self, start: int, stop: int) -> Tensor:
        """Group-mean attention `[stop - start, N]`, float32, of the queries at those positions; 0
        before the text's beginning.

        The whole row of a query that ran before an eviction is what the tokens that are left
        received then.
        """
        if start < 0:
            return torch.cat(
                [self.lse.new_zeros(-start, self.positions.shape[0]), self.rows(0, stop)]
            )
        return self._rows(start, stop, self.positions.shape[0], self._room(stop - start))

    def _rows(self, start: int, stop: int, born: int, room: Tensor) -> Tensor:
        """`rows` `[stop - start, born]` of the oldest `born` tokens, computed in `room`."""
        assert self.first <= start <= stop <= self.stop, "queries that were not carried over"
        window = slice(start - self.first, stop - self.first)
        query, lse = self.queries[:, window].float() * self.scale, self.lse[:, window]
        heads, count = lse.shape
        logits = torch.mm(
            query.flatten(0, 1),
            self._float_keys[:born].T,
            out=room[: heads * count * born].view(heads * count, born),
        )
        mean = logits.view(heads, count, born).sub_(lse[..., None]).exp_().mean(0)
        # at most self.stop - start tokens are newer than the first of these queries, and they are
        # the last ones
        newest = min(self.stop - start, born)
        if newest:
            at = torch.arange(start, stop, device=mean.device)
            mean[:, -newest:].masked_fill_(
                self.positions[None, born - newest : born] > at[:, None], 0.0
            )
        return mean

    def blocks(self, start: int, stop: int, size: int | None = None) -> Iterator[Tensor]:
        """`rows` of consecutive queries, `size` at a time."""
        size = size or self._block()
        for at in range(start, stop, size):
            yield self.rows(at, min(at + size, stop))

    def again(self, start: int, stop: int, size: int | None = None) -> Iterator[Tensor]:
        """The attention `[R, at most size, N]`, float32, that the queries of `start .. stop - 1`
        would pay if the text since the last update came once more right after itself: they are
        turned to those positions and see all N tokens, their own future included.
        """
        for block in torch.split(self._turned(start, stop), size or self._block(), dim=1):
            yield torch.matmul(block, self._float_keys.T).softmax(-1)

    def _turned(self, start: int, stop: int) -> Tensor:
        """Queries `[R, at most stop - start, D]`, float32, at their second positions, times
        `scale`.
        """
        assert self.rotation is not None, "the cache was not made for a policy that reads again"
        window = slice(max(start, self.first) - self.first, stop - self.first)
        return self.rotation.turn(self.queries[:, window], self.stop - self.fresh, self.scale)
