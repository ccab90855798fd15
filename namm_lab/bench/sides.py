"""The caches that are compared, each as one way to read and to decode with the same model.

`transformers` is the reference: its full cache and SDPA attention, reading in the same chunks as
ours, which is what bounds memory for anyone. `transformers-whole` reads the prompt in one forward
call, as `generate` does by itself; `transformers-generate` reads through `generate` with its own
`prefill_chunk_size`; `transformers-fp8`, `-quanto` and `-hqq` are its QuantizedCache.
"""

from __future__ import annotations

import time
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
from namm_llm.cache import ManagedCache
from namm_llm.cache.timing import measured
from namm_llm.config import CacheConfig
from namm_llm.errors import UsageError

REFERENCE = "transformers"
_PACKAGES = {"quanto": "optimum.quanto", "hqq": "hqq"}
_INSTALL = {"quanto": "optimum-quanto", "hqq": "hqq"}
Numbers = dict[str, Any]


@dataclass
class TimedReading:
    """seconds: until the first token of the answer was known. token: that token `[B, 1]`. cache:
    what may be decoded from. stages: seconds of observe, score, select and compact, if they were
    timed. numbers: of the cache: kept_fraction, nbytes, full_nbytes.
    """

    seconds: float
    token: Any = None
    cache: Any = None
    stages: dict[str, float] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


class CacheSide:
    """One way to keep a cache. name: of the side. policy, budget: what rows say of it. chunk:
    tokens of a forward call, None for all.
    """

    tasks: ClassVar[tuple[str, ...]] = ("prefill", "decode", "memory")

    def __init__(
        self,
        name: str,
        *,
        policy: str = "full",
        budget: str | None = None,
        chunk: int | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.budget = budget
        self.chunk = chunk

    @property
    def label(self) -> str:
        """`namm-llm replay 0.25`, as a progress bar says it."""
        return " ".join(
            part
            for part in (self.name, self.policy if self.policy != "full" else None, self.budget)
            if part
        )

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
        return TimedReading(
            time.perf_counter() - start, token, cache, {}, self.numbers(model, cache, ids)
        )

    @torch.inference_mode()
    def _read_into(self, model: PreTrainedModel, ids: Tensor, cache: Cache) -> Tensor:
        for piece in torch.split(ids, self.chunk or ids.shape[1], 1):
            logits: Tensor = model(
                piece, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits
        return logits[:, -1:].argmax(-1)

    @torch.inference_mode()
    def decode(self, model: PreTrainedModel, reading: TimedReading, tokens: int) -> float:
        """Seconds to decode greedily from a copy of what was read."""
        self.new_cache(model)  # switches the model to the attention that this cache needs
        cache, token = self.copy(reading.cache), reading.token
        synchronize(token.device)
        start = time.perf_counter()
        for _ in range(tokens):
            token = model(token, past_key_values=cache, use_cache=True).logits.argmax(-1)
        synchronize(token.device)
        return time.perf_counter() - start

    def copy(self, cache: Cache) -> Cache:
        """A cache that goes on on its own."""
        return deepcopy(cache)

    def numbers(self, model: PreTrainedModel, cache: Cache, ids: Tensor) -> Numbers:
        """What the cache holds."""
        full = _full_nbytes(model, ids)
        return {"kept_fraction": 1.0, "nbytes": _held_nbytes(cache), "full_nbytes": full}

    def peak(self, request: dict[str, Any]) -> Numbers | None:
        """Peak memory of reading in a process of this side's own making, or None: then the usual
        child process does it.
        """
        return None


class OurSide(CacheSide):
    """`ManagedCache` with these settings."""

    def __init__(self, eviction: CacheConfig, budget: str | None, chunk: int) -> None:
        super().__init__("namm-llm", policy=eviction.policy.name, budget=budget, chunk=chunk)
        self.eviction = eviction

    @property
    def label(self) -> str:
        return (
            f"{super().label} {self.eviction.kv_bits}-bit"
            if self.eviction.kv_bits is not None
            else super().label
        )

    def new_cache(self, model: PreTrainedModel) -> ManagedCache:
        return ManagedCache.for_model(model, eviction=self.eviction)

    def read(self, model: PreTrainedModel, ids: Tensor, *, stages: bool = False) -> TimedReading:
        if not stages:
            return super().read(model, ids)
        with measured() as totals:
            reading = super().read(model, ids)
        reading.stages = dict(totals)
        return reading

    def copy(self, cache: Cache) -> Cache:
        assert isinstance(cache, ManagedCache)
        return cache.fork()

    def numbers(self, model: PreTrainedModel, cache: Cache, ids: Tensor) -> Numbers:
        assert isinstance(cache, ManagedCache)
        stats = cache.stats()
        return {
            "kept_fraction": stats.kept_fraction,
            "nbytes": stats.nbytes,
            "full_nbytes": stats.full_nbytes,
        }


class GenerateSide(CacheSide):
    """transformers' `generate` with its own `prefill_chunk_size`; it decodes as the reference does,
    so only its reading is timed.
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


class QuantizedSide(CacheSide):
    """transformers' QuantizedCache. backend: fp8 needs no package, quanto and hqq (4 bits) their
    own.
    """

    def __init__(self, backend: str, chunk: int) -> None:
        super().__init__(f"transformers-{backend}", chunk=chunk)
        self.backend = backend

    def new_cache(self, model: PreTrainedModel) -> Cache:
        model.set_attn_implementation("sdpa")
        return QuantizedCache(self.backend, config=model.config)


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


def peer_side(name: str, chunk: int) -> CacheSide:
    """A side of transformers by name. Raises UsageError."""
    if name == REFERENCE:
        return CacheSide(name, chunk=chunk)
    if name == "transformers-whole":
        return CacheSide(name)
    if name == "transformers-generate":
        return GenerateSide(name, chunk=chunk)
    if name in PEERS:
        return QuantizedSide(name.removeprefix("transformers-"), chunk)
    raise UsageError(
        f"there is no peer {name!r}; it is one of {', '.join(PEERS)}. kvpress has its own run: make bench-peers."
    )


def _full_nbytes(model: PreTrainedModel, ids: Tensor) -> int:
    from namm_lab.bench.shapes import Shape

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
