"""Decoding one token after the other in shapes that never change between two updates, which a CUDA graph records once and repeats.

The recent part has room for a whole interval from the beginning and lengths are numbers on the device, so nothing of a step depends on the
host: it starts no allocation, waits for nothing and copies nothing back. At an update the normal code judges and evicts; then the settled
tokens move into buffers of a bucket's size, and the graph is recorded again only if they have outgrown it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from namm_llm.attention.interface import ManagedKeys
from namm_llm.attention.static import Segments, static_attention
from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.managed import ManagedCache, prepare_model
from namm_llm.cache.placement import layer_devices
from namm_llm.cache.recent import Rows
from namm_llm.cache.sequence import LayerSequence
from namm_llm.errors import CacheError

_WARM = 2  # runs before a recording: kernels are compiled and libraries set up


def bucket(tokens: int) -> int:
    """Room for that many tokens and at most a quarter more, so that a few sizes serve all lengths."""
    step = max(16, 1 << max(0, tokens.bit_length() - 3))
    return -(-max(1, tokens) // step) * step


class StaticDecoder:
    """Decodes a cache of one sequence; `finish` gives the cache as it is then. The one that was given stays as it was.

    graph: record a CUDA graph and repeat it; else the same step runs eagerly (on the CPU, for tests). Raises CacheError for a cache that
    it cannot decode: empty, of several sequences, on several devices, or with layers that have a sliding window.
    """

    def __init__(self, model: PreTrainedModel, cache: ManagedCache, *, graph: bool = True) -> None:
        _check(model, cache, graph)
        prepare_model(model)
        self._model = model
        self._cache = cache.fork()
        first = self._cache.managed[0].sequences[0]
        device = first.settled.keys.device
        self._clock = _Clock(device, len(first.settled.lengths))
        self._layers = [_StaticLayer(layer, self._clock) for layer in self._cache.managed]
        self._token = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._logits: Tensor | None = None
        self._graph = torch.cuda.CUDAGraph() if graph else None
        self._recorded: tuple[int, ...] | None = None
        self._clock.set(first)

    @torch.no_grad()
    def step(self, token: Tensor) -> Tensor:
        """Logits `[1, V]` after one more token `[1, 1]`; the next step writes over them. Nothing waits unless an update falls due."""
        self._token.copy_(token)
        if self._graph is None:
            self._forward()
        else:
            sizes = tuple(size for layer in self._layers for size in layer.sizes)
            if sizes != self._recorded:
                self._record()
                self._recorded = sizes
            self._graph.replay()
        self._clock.tick()
        if self._clock.seen % self._cache.eviction.interval == 0:
            self._update()
        assert self._logits is not None
        return self._logits

    def greedy(self, token: Tensor, count: int) -> Tensor:
        """The `count` most likely tokens `[count]` after `token` `[1, 1]`, on the device; read them all at once."""
        found = torch.empty(count, dtype=torch.int64, device=self._token.device)
        for at in range(count):
            found[at] = self.step(token)[0].argmax()
            token = found[at].view(1, 1)
        return found

    def finish(self) -> ManagedCache:
        """The cache with all tokens that went through, in storage of its own; the decoder is used up."""
        for layer in self._layers:
            layer.hand_over()
            layer.leave()
        self._graph = None
        return self._cache

    def _forward(self) -> None:
        static = Cache(layers=cast("list[Any]", self._layers))
        out = self._model(
            input_ids=self._token, position_ids=self._clock.position, past_key_values=static, use_cache=True, logits_to_keep=1
        )
        if self._logits is None:
            self._logits = torch.empty_like(out.logits[:, -1])
        self._logits.copy_(out.logits[:, -1])
        self._clock.advance()

    def _record(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                self._forward()
                self._clock.rewind()  # each run wrote the row that the next one writes
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._forward()

    def _update(self) -> None:
        """All layers stand at the same token, so the order of the normal path does not matter."""
        for layer in self._layers:
            layer.hand_over()
        for managed in self._cache.managed:
            managed.on_due(managed, 0)
        for layer in self._layers:
            layer.take_over()
        self._clock.set(self._cache.managed[0].sequences[0])


class _Clock:
    """Where the next token goes, the same in every layer: on the device for the step, and on the host, which counts along.

    row, place, position: int64 `[1]`, `[1]`, `[1, 1]`: of its key, of its query, in the text. lengths: int32 `[G]`, recent tokens after it.
    """

    def __init__(self, device: torch.device, heads: int) -> None:
        self.row = torch.zeros(1, dtype=torch.int64, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self.lengths = torch.ones(heads, dtype=torch.int32, device=device)
        self.recent = self.queries = self.seen = 0

    def set(self, sequence: LayerSequence) -> None:
        """Go on behind what the sequence holds."""
        self.recent, self.queries, self.seen = sequence.recent.count, sequence.queries.count, sequence.seen
        self.rewind()

    def tick(self) -> None:
        """The host's count of one token."""
        self.recent, self.queries, self.seen = self.recent + 1, self.queries + 1, self.seen + 1

    def advance(self) -> None:
        """The device's count of one token, a part of the step."""
        for number in (self.row, self.place, self.position, self.lengths):
            number.add_(1)

    def rewind(self) -> None:
        """The device's numbers back to the host's."""
        self.row.fill_(self.recent)
        self.place.fill_(self.queries)
        self.position.fill_(self.seen)
        self.lengths.fill_(self.recent + 1)


@dataclass(frozen=True)
class _NewToken(ManagedKeys):
    """Key and value `[1, G, 1, D]` on their way from `update` to attention."""

    layer: _StaticLayer
    keys: Tensor
    values: Tensor

    def attend(self, query: Tensor, padding: Tensor | None, scale: float) -> Tensor:
        return self.layer.extend(query[0], self.keys[0], self.values[0])[None].transpose(1, 2)


class _StaticLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer in buffers that stay where they are: settled columns of a bucket's size, room for one interval of recent tokens."""

    is_sliding = False

    def __init__(self, layer: ManagedLayer, clock: _Clock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._managed = layer
        self._clock = clock
        sequence = self._sequence
        interval = sequence.eviction.interval
        groups, key, value = _head_sizes(sequence)
        self._keys = key.new_empty(groups, interval, key.shape[-1])
        self._values = value.new_empty(groups, interval, value.shape[-1])
        self._queries: list[Tensor] = []
        self._settled: dict[str, Tensor] = {}
        self._bounds = torch.zeros(2, groups, dtype=torch.int32, device=key.device)
        starts = torch.arange(groups, dtype=torch.int32, device=key.device) * interval
        self._recent = Segments(self._keys.flatten(0, 1), self._values.flatten(0, 1), starts, clock.lengths, interval)
        self._longest = 0
        self.is_initialized = True
        self.take_over()

    @property
    def _sequence(self) -> LayerSequence:
        return self._managed.sequences[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """What a recorded graph depends on."""
        return len(self._settled["keys"]), self._longest

    def extend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store one token, key and value `[G, 1, D]`, and attend with its queries `[H, 1, D]`."""
        clock, sequence = self._clock, self._sequence
        self._keys.index_copy_(1, clock.row, keys)
        self._values.index_copy_(1, clock.row, values)
        settled = Segments(self._settled["keys"], self._settled["values"], self._bounds[0], self._bounds[1], self._longest)
        out, lse = static_attention(query, (settled, self._recent), scale=sequence.scale)
        if sequence.eviction.policy.observes:
            self._make_room(query, lse)
            for buffer, new in zip(self._queries, (query, lse), strict=True):
                buffer.index_copy_(1, clock.place, new)
        return out

    def take_over(self) -> None:
        """Move what the sequence holds into the buffers."""
        sequence = self._sequence
        self._take_settled(sequence)
        for buffer, column in zip((self._keys, self._values), sequence.recent.columns(), strict=False):
            buffer[:, : column.shape[1]] = column
        if sequence.eviction.policy.observes:
            self._take_queries(sequence)

    def _take_settled(self, sequence: LayerSequence) -> None:
        settled = sequence.settled
        room, self._longest = bucket(len(settled.positions)), bucket(settled.longest)
        for name, column in settled.tensors().items():
            if name not in self._settled or len(self._settled[name]) != room:
                self._settled[name] = column.new_empty(room, *column.shape[1:])
            self._settled[name][: len(column)] = column
        lengths = torch.tensor(settled.lengths, dtype=torch.int32)
        self._bounds.copy_(torch.stack([lengths.cumsum(0).int() - lengths, lengths]))
        views = {name: column[: len(settled.positions)] for name, column in self._settled.items()}
        sequence.settled = replace(settled, **cast("dict[str, Any]", views))  # what was there may go

    def _take_queries(self, sequence: LayerSequence) -> None:
        columns = sequence.queries.columns()  # none, if the policy carries nothing over an update
        if columns:
            self._make_room(*columns)
        for buffer, column in zip(self._queries, columns, strict=False):
            buffer[:, : column.shape[1]] = column

    def _make_room(self, *like: Tensor) -> None:
        """Buffers for queries and log-sum-exps `[H, ...]`, for a whole interval and the most that is carried over an update."""
        if self._queries:
            return
        policy, interval = self._sequence.eviction.policy, self._sequence.eviction.interval
        room = interval + max(policy.carry(seen) for seen in range(interval))
        self._queries = [column.new_empty(column.shape[0], room, *column.shape[2:]) for column in like]

    def hand_over(self) -> None:
        """Let the sequence see all that is in the buffers."""
        clock, sequence = self._clock, self._sequence
        sequence.seen = clock.seen
        self._managed.columns = clock.seen
        sequence.recent = Rows(*(buffer[:, : clock.recent] for buffer in (self._keys, self._values)))
        sequence.queries = Rows(*(buffer[:, : clock.queries] for buffer in self._queries))

    def leave(self) -> None:
        """Give the sequence storage of its own again."""
        sequence = self._sequence
        columns = {name: column.clone() for name, column in sequence.settled.tensors().items()}
        sequence.settled = replace(sequence.settled, **cast("dict[str, Any]", columns))
        sequence.recent, sequence.queries = sequence.recent.copy(), sequence.queries.copy()

    def update(  # type: ignore[override]  # as `ManagedLayer.update`: attention gets our handle
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[ManagedKeys, Tensor]:
        """Key and value `[1, G, 1, D]` of the new token."""
        return _NewToken(self, key_states, value_states), value_states

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do."""

    def get_seq_length(self) -> int:
        """Tokens that went through."""
        return self._clock.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that a dense mask would have; ours is never built."""
        return self._clock.seen + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


def _head_sizes(sequence: LayerSequence) -> tuple[int, Tensor, Tensor]:
    """KV heads, and a column of keys and of values of the right type."""
    return len(sequence.settled.lengths), sequence.settled.keys, sequence.settled.values


def _check(model: PreTrainedModel, cache: ManagedCache, graph: bool) -> None:
    if len(cache.managed) < len(cache.layers):
        raise CacheError("layers with a sliding window cannot be decoded in static shapes; use the model itself")
    rows = len(cache.managed[0].sequences)
    if rows != 1:
        raise CacheError(f"static decoding takes a cache of one sequence that has been read, this one holds {rows}")
    if cache.eviction.kv_bits is not None:
        raise CacheError(f"static decoding takes keys and values as they are computed, these have {cache.eviction.kv_bits} bits")
    if cache.managed[0].sequences[0].settled.scales is not None:
        raise CacheError("static decoding takes keys and values as computed; leave kv_bits out")
    devices = sorted({str(device) for device in layer_devices(model).values()})
    if len(devices) > 1:
        raise CacheError(f"static decoding takes a model on one device, this one is on {', '.join(devices)}")
    if graph and not devices[0].startswith("cuda"):
        raise CacheError(f"CUDA graphs need a model on a GPU, this one is on {devices[0]}; pass graph=False")
