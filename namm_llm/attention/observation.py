"""The attention that stored tokens received, recomputed from the queries and their log-sum-exp; no
attention matrix is ever kept.

`p = exp(q k / sqrt(d) - lse)`, mean over the query heads of the group: exact with any fused
attention, for as few queries at a time as one likes. Works on one KV head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from namm_llm.attention import backend
from namm_llm.attention.fold import Fold
from namm_llm.attention.rope import Rotation

BLOCK_FLOATS = 2**18  # probabilities that a core works on at a time: 1 MiB, its own cache
_FEWEST_ROWS = 64  # of a matrix product that is not held up by reading the keys
# sizes are rounded up to it: for each new one oneDNN compiles a product in bfloat16, and keeps it
_COLUMNS = 256


class Scratch:
    """Memory that one computation after the other writes over, because fresh memory costs as much
    as what is computed in it. Grows to the largest size that was asked for.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def take(self, count: int, like: Tensor) -> Tensor:
        """`[count]` numbers of any content, of the type and on the device of `like`."""
        nbytes, buffer = count * like.itemsize, self._buffer
        if buffer is None or buffer.numel() < nbytes or buffer.device != like.device:
            buffer = self._buffer = like.new_empty(nbytes, dtype=torch.uint8)
        return buffer[:nbytes].view(like.dtype)


@dataclass(frozen=True)
class Observation:
    """The attention that the newest queries paid to the N stored tokens of one KV head.

    R query heads share the KV head; the last Q queries of each are known.
    """

    queries: Tensor
    """`[R, Q, D]`, after RoPE; the last one stands at position `query_stop - 1`."""
    lse: Tensor
    """`[R, Q]`, float32: log-sum-exp of each query's logits when it ran."""
    keys: Tensor
    """`[N, D]`, after RoPE, any float type."""
    positions: Tensor
    """`[N]`, ascending."""
    scale: float
    """Factor of the logits."""
    query_stop: int
    """Position after the last query."""
    new_start: int
    """Position of the first query since the last eviction step; older ones were carried over."""
    rotation: Rotation | None = None
    """The model's rotary positions, for query replay."""
    scratch: Scratch = field(default_factory=Scratch)
    """Memory that the heads of a layer use one after the other."""

    @property
    def query_start(self) -> int:
        """Position of the oldest query that is still known."""
        return self.query_stop - self.queries.shape[1]

    def rows(self, start: int, stop: int) -> Tensor:
        """Group-mean attention `[stop - start, N]`, float32, of the queries at those positions; 0
        before the text's beginning.

        A query that ran before an eviction step: what it paid then to the tokens that are left.
        """
        if start < 0:
            before = self.lse.new_zeros(-start, self.positions.shape[0])
            return torch.cat([before, self.rows(0, stop)])
        return self._rows(start, stop, self.positions.shape[0], self._scratch(stop - start))

    def fold(self, fold: Fold, state: Tensor, *, start: int | None = None) -> Tensor:
        """Fold the attention of the new queries into `state`.

        Only whole hops are folded, those of positions that are multiples of `fold.hop`; queries of
        a hop that is not yet whole have to be carried over. state: `[N, W]`, any float type. start:
        position of the first query; by default the first since the last eviction step. Returns
        `[N, W]` in float32 (`state` itself if there is no new hop).
        """
        first = self.new_start if start is None else start
        first, stop = first // fold.hop * fold.hop, self.query_stop // fold.hop * fold.hop
        if first == stop:
            return state
        if run := backend.kernel(fold.kernel, self.keys):
            arguments = fold.kernel_arguments(self.keys.device)
            folded: Tensor = run(self, state, start=first, stop=stop, **arguments)
            return folded
        return self._fold(fold, state.float().clone(), first, stop)

    def _fold(self, fold: Fold, state: Tensor, start: int, stop: int) -> Tensor:
        left = self.rows(start - fold.overlap, start) if fold.overlap else None
        size = self._block(fold.hop)
        scratch = self._scratch(size)
        for at in range(start, stop, size):
            to = min(at + size, stop)
            # newer tokens were paid nothing yet
            born = int(torch.searchsorted(self.positions, to))
            rows = self._rows(at, to, born, scratch)
            if left is not None:
                rows = torch.cat([left[:, :born], rows])
                left = pad(rows[-fold.overlap :], (0, len(state) - born))
            state[:born] = fold.update(state[:born], rows)
        return state

    def max_replayed_attention(self, start: int) -> Tensor:
        """The largest attention `[N]`, float32, that any query from position `start` on would pay
        to each token under query replay: rotated to the positions right after the newest token, as
        if the text since the last eviction step came once more, and seeing all N tokens.
        """
        queries = self._replayed(start)
        if run := backend.kernel("max_replayed_attention", self.keys):
            found: Tensor | None = run(queries, self.keys, scale=1.0)
            if found is not None:
                return found
        return self.max_replayed_by_torch(queries)

    def max_replayed_by_torch(self, queries: Tensor) -> Tensor:
        """The definition of `max_replayed_attention`, for queries at their later positions."""
        dtype = _replay_dtype(self.keys.device)
        queries, count = queries.flatten(0, 1).to(dtype), len(self.keys)
        keys = queries.new_zeros(max(1, -(-count // _COLUMNS)) * _COLUMNS, queries.shape[-1])
        keys[:count] = self.keys
        size = max(_FEWEST_ROWS, _block_floats() * 4 // (dtype.itemsize * len(keys)))
        scratch = self.scratch.take(min(size, len(queries)) * len(keys), keys)
        largest = keys.new_full((len(keys),), -torch.inf)
        for block in torch.split(queries, size):
            out = scratch[: len(block) * len(keys)].view(len(block), len(keys))
            logits = torch.mm(block, keys.T, out=out)
            logits[:, count:] = -torch.inf
            # the largest logarithm first: then one exponential a token, not one more pass
            best = torch.log_softmax(logits, -1, out=logits).amax(0)
            torch.maximum(largest, best, out=largest)
        return largest[:count].float().exp_()

    def _replayed(self, start: int) -> Tensor:
        """Queries `[R, at most query_stop - start, D]`, float32, at their later positions, times
        `scale`.
        """
        assert self.rotation is not None, "the cache was not made for a policy with query replay"
        known = self.queries[:, max(start, self.query_start) - self.query_start :]
        return self.rotation.turn(known, self.query_stop - self.new_start, self.scale)

    @cached_property
    def _float_keys(self) -> Tensor:
        return self.keys.float()

    def _block(self, multiple: int = 1) -> int:
        """Queries to work on at a time, a multiple of `multiple`."""
        logits = self.queries.shape[0] * max(1, self.positions.shape[0]) * multiple
        return max(1, _block_floats() // logits) * multiple

    def _scratch(self, size: int) -> Tensor:
        """Floats for the probabilities of `size` queries."""
        return self.scratch.take(self.queries.shape[0] * size * self.positions.shape[0], self.lse)

    def _rows(self, start: int, stop: int, born: int, scratch: Tensor) -> Tensor:
        """`rows` `[stop - start, born]` of the oldest `born` tokens, computed in `scratch`."""
        first = self.query_start
        assert first <= start <= stop <= self.query_stop, "queries that were not carried over"
        window = slice(start - first, stop - first)
        query, lse = self.queries[:, window].float() * self.scale, self.lse[:, window]
        heads, count = lse.shape
        out = scratch[: heads * count * born].view(heads * count, born)
        logits = torch.mm(query.flatten(0, 1), self._float_keys[:born].T, out=out)
        mean = logits.view(heads, count, born).sub_(lse[..., None]).exp_().mean(0)
        # at most query_stop - start tokens are newer than the first of these queries, and they are
        # the last ones
        newest = min(self.query_stop - start, born)
        if newest:
            at = torch.arange(start, stop, device=mean.device)
            positions = self.positions[None, born - newest : born]
            mean[:, -newest:].masked_fill_(positions > at[:, None], 0.0)
        return mean


def _block_floats() -> int:
    """Probabilities that all cores together work on at a time."""
    return BLOCK_FLOATS * torch.get_num_threads()


def _replay_dtype(device: torch.device) -> torch.dtype:
    """Type of the products of query replay: bfloat16 on a CPU that multiplies it natively, else
    float32.

    The result ranks tokens whose attention spans decades, and bfloat16 is off by a few hundredths
    of its logarithm. Attention itself is always computed in the model's own type.
    """
    native = device.type == "cpu" and cpu_multiplies_bfloat16()
    return torch.bfloat16 if native else torch.float32


@lru_cache(maxsize=1)
def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
