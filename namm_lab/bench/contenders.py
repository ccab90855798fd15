"""The caches that are compared, each as one way to read and to decode with the same model.

`transformers` is the reference: its full cache and SDPA attention, reading in the same chunks as
ours, which is what bounds memory for anyone. `transformers-whole` reads the prompt in one forward
call, as `generate` does by itself; `transformers-generate` reads through `generate` with its own
`prefill_chunk_size`; `transformers-fp8`, `-quanto` and `-hqq` are its QuantizedCache.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, QuantizedCache
from transformers.cache_utils import Cache

from namm_lab.bench.machine import synchronize
from namm_lab.bench.shapes import Shape
from namm_llm import CacheConfig, ManagedCache, UsageError
from namm_llm.cache import Stopwatch
from namm_llm.engine import forward

REFERENCE = "transformers"
_PACKAGES = {"quanto": "optimum.quanto", "hqq": "hqq"}
_INSTALL = {"quanto": "optimum-quanto", "hqq": "hqq"}
Numbers = dict[str, Any]


@dataclass
class TimedReading:
    """A prompt that was read, up to the first token of the answer."""

    seconds: float
    """Until that token was known."""
    token: Any = None
    """That token, `[B, 1]`."""
    cache: Any = None
    """What may be decoded from."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of observe, score, select and compact, if they were timed."""
    numbers: Numbers = field(default_factory=dict)
    """Of the cache: kept_fraction, nbytes, full_nbytes."""


class Contender:
    """One way to keep a cache; this one is transformers' full cache."""

    tasks: ClassVar[tuple[str, ...]] = ("prefill", "decode", "memory", "needles")
    peer: str | None = None
    """Package and version of another program."""

    def __init__(
        self,
        name: str,
        *,
        policy: str = "full",
        budget: str | None = None,
        chunk: int | None = None,
    ) -> None:
        """policy, budget: what rows say of it. chunk: tokens of a forward call, None for all."""
        self.name = name
        self.policy = policy
        self.budget = budget
        self.chunk = chunk

    @property
    def label(self) -> str:
        """`namm-llm replay 0.25`, as a progress bar says it."""
        policy = self.policy if self.policy != "full" else None
        return " ".join(part for part in (self.name, policy, self.budget) if part)

    def new_cache(self, model: PreTrainedModel) -> Cache:
        """An empty cache, with the model's attention set for it."""
        model.set_attn_implementation("sdpa")
        return DynamicCache(config=model.config)

    def read(self, model: PreTrainedModel, ids: Tensor, *, stages: bool = False) -> TimedReading:
        """Read ids `[B, T]` up to the first token of the answer."""
        cache = self.new_cache(model)
        synchronize(ids.device)
        start = time.perf_counter()
        token = self._read_into(model, ids, cache)
        synchronize(ids.device)
        seconds = time.perf_counter() - start
        return TimedReading(seconds, token, cache, {}, self.numbers(model, cache, ids))

    @torch.inference_mode()
    def _read_into(self, model: PreTrainedModel, ids: Tensor, cache: Cache) -> Tensor:
        pieces = forward.feed(model, cache, ids, chunk=self.chunk, last_only=True)
        return deque(pieces, maxlen=1)[0].argmax(-1)

    @torch.inference_mode()
    def decode(self, model: PreTrainedModel, reading: TimedReading, tokens: int) -> float:
        """Seconds to decode greedily from a copy of what was read."""
        self.new_cache(model)  # switches the model to the attention that this cache needs
        cache, token = self.copy(reading.cache), reading.token
        positions = torch.full_like(token, forward.tokens_seen(cache))
        synchronize(token.device)
        start = time.perf_counter()
        for _ in range(tokens):
            token = forward.step(model, cache, token, positions).argmax(-1, keepdim=True)
            positions = positions + 1
        synchronize(token.device)
        return time.perf_counter() - start

    @torch.inference_mode()
    def answer(
        self, model: PreTrainedModel, ids: Tensor, tokens: int
    ) -> tuple[list[int], TimedReading]:
        """The ids of a greedy answer to `[1, T]`, and the reading before it."""
        reading = self.read(model, ids)
        token, found = reading.token, [int(reading.token)]
        for position in range(ids.shape[1], ids.shape[1] + tokens - 1):
            at = torch.full_like(token, position)
            token = forward.step(model, reading.cache, token, at).argmax(-1, keepdim=True)
            found.append(int(token))
        return found, reading

    def copy(self, cache: Cache) -> Cache:
        """A cache that goes on on its own."""
        return deepcopy(cache)

    def numbers(self, model: PreTrainedModel, cache: Cache, ids: Tensor) -> Numbers:
        """What the cache holds."""
        full = full_nbytes(model, ids)
        return {"kept_fraction": 1.0, "nbytes": _held_nbytes(cache), "full_nbytes": full}

    def peak(self, request: dict[str, Any]) -> Numbers | None:
        """Peak memory of reading in a process of its own making, or None: then the usual child
        process does it.
        """
        return None


class ManagedContender(Contender):
    """`ManagedCache` with these settings."""

    def __init__(self, config: CacheConfig, budget: str | None, chunk: int) -> None:
        super().__init__("namm-llm", policy=config.policy.name, budget=budget, chunk=chunk)
        self.config = config
        self._stopwatch: Stopwatch | None = None

    @property
    def label(self) -> str:
        bits = f" {self.config.kv_bits}-bit" if self.config.kv_bits is not None else ""
        return f"{super().label}{bits}"

    def new_cache(self, model: PreTrainedModel) -> ManagedCache:
        cache = ManagedCache.for_model(model, self.config)
        cache.stopwatch = self._stopwatch
        return cache

    def read(self, model: PreTrainedModel, ids: Tensor, *, stages: bool = False) -> TimedReading:
        self._stopwatch = Stopwatch() if stages else None
        reading = super().read(model, ids)
        if self._stopwatch is not None:
            reading.stages, self._stopwatch = self._stopwatch.seconds, None
        return reading

    def copy(self, cache: Cache) -> Cache:
        assert isinstance(cache, ManagedCache)
        return cache.fork()

    def numbers(self, model: PreTrainedModel, cache: Cache, ids: Tensor) -> Numbers:
        assert isinstance(cache, ManagedCache)
        stats = cache.stats()
        names = ("kept_fraction", "nbytes", "full_nbytes")
        return {name: getattr(stats, name) for name in names}


class GenerateContender(Contender):
    """The `generate` of transformers with its own `prefill_chunk_size`; it decodes as the reference
    does, so only its reading is timed.
    """

    tasks = ("prefill", "memory")

    @torch.inference_mode()
    def _read_into(self, model: PreTrainedModel, ids: Tensor, cache: Cache) -> Tensor:
        make: Any = GenerationConfig
        config = make(
            max_new_tokens=1,
            do_sample=False,
            prefill_chunk_size=self.chunk,
            pad_token_id=0,
            eos_token_id=None,
        )
        out: Any = model.generate(
            ids,
            past_key_values=cache,
            generation_config=config,
            attention_mask=torch.ones_like(ids),
        )  # type: ignore[operator]
        return out[:, -1:]  # type: ignore[no-any-return]


class QuantizedContender(Contender):
    """The QuantizedCache of transformers; its backend fp8 needs no package, quanto and hqq (4 bits)
    their own.
    """

    def __init__(self, backend: str, chunk: int) -> None:
        super().__init__(f"transformers-{backend}", chunk=chunk)
        self.backend = backend

    def new_cache(self, model: PreTrainedModel) -> Cache:
        model.set_attn_implementation("sdpa")
        return QuantizedCache(self.backend, config=model.config)


OUTSIDE = ("llama.cpp", "openvino", "transformers")
"""Peers in a process of their own, which open a GGUF file; `transformers` is one for such a file
alone, and else the reference."""
PEERS = (
    "transformers-whole",
    "transformers-generate",
    "transformers-fp8",
    "transformers-quanto",
    "transformers-hqq",
)
DEFAULT_PEERS = ("transformers-whole", "transformers-generate", "transformers-fp8")


def missing(peer: str) -> str | None:
    """Why this peer cannot be measured here, in one line, or None if it can."""
    backend = peer.removeprefix("transformers-")
    if backend not in _PACKAGES:
        return None
    package = _PACKAGES[backend]
    if find_spec(package.partition(".")[0]) is not None and find_spec(package) is not None:
        return None
    return f"{peer} is left out: its backend is not installed (pip install {_INSTALL[backend]})."


def peer_contender(name: str, chunk: int) -> Contender:
    """A contender of transformers by name. Raises UsageError."""
    if name == REFERENCE:
        return Contender(name, chunk=chunk)
    if name == "transformers-whole":
        return Contender(name)
    if name == "transformers-generate":
        return GenerateContender(name, chunk=chunk)
    if name in PEERS:
        return QuantizedContender(name.removeprefix("transformers-"), chunk)
    raise UsageError(
        f"there is no peer {name!r}; it is one of {', '.join((*OUTSIDE, *PEERS))}. "
        "kvpress has its own run: make bench-kvpress."
    )


def full_nbytes(model: PreTrainedModel, ids: Tensor) -> int:
    """Keys and values of all tokens, in the model's dtype."""
    shape = Shape.of_config(model.config, "")
    return ids.numel() * shape.layers * shape.kv_heads * 2 * shape.head_dim * model.dtype.itemsize


def _held_nbytes(cache: Cache) -> int:
    """Bytes of all tensors that the cache's layers hold; shared memory once."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for layer in cache.layers
        for t in _tensors(vars(layer))
    }
    return sum(storages.values())


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        inner = [
            getattr(value, name)
            for name in ("_data", "_scale", "_shift")
            if isinstance(getattr(value, name, None), Tensor)
        ]
        yield from inner or [value]  # a quantised tensor of quanto is a shell around three
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
