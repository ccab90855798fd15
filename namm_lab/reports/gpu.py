"""What a GPU has to show: the spectrogram's kernel against attention, an 8B in nf4 over a long
text, decoding against transformers' cache.

Random weights, no network; `--dry` runs the same code on tiny sizes wherever it is, to see that it
runs at all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from namm_lab.bench.machine import peak_nbytes, start_peak, synchronize
from namm_lab.bench.shapes import Shape, random_ids, random_model, shape_named
from namm_lab.rows import Row
from namm_llm import ManagedCache, Observation, Spectrogram
from namm_llm.engine import forward

PAIRS = 5
"""Timed runs of both sides of a comparison."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    shape: Shape
    lengths: tuple[int, ...]
    """Tokens at which decoding is timed; the last one is the whole text."""
    decoded: int
    """Tokens decoded in one run."""
    interval: int
    """Tokens of a forward call, and between two eviction steps."""


REAL = Sizes(shape_named("8b"), (32_000, 128_000), decoded=64, interval=512)
DRY = Sizes(
    Shape("dry", 128, 256, 2, 4, 2, 512, 32, positions=4096), (64, 128), decoded=8, interval=32
)


@torch.no_grad()
def compare(*, dry: bool, policy: str, budget: float) -> list[Row]:
    """All rows. Needs a CUDA device unless `dry`."""
    sizes = DRY if dry else REAL
    device = torch.device("cpu" if dry else "cuda")
    rows = [_spectrogram(sizes, tokens, device) for tokens in sizes.lengths]
    model = random_model(sizes.shape, torch.bfloat16, str(device), "nf4")
    return rows + _reading(model, sizes, policy, budget)


def name_of(device: torch.device) -> str:
    """The card, for the rows."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu (dry run)"


def _spectrogram(sizes: Sizes, tokens: int, device: torch.device) -> Row:
    """The statistic of one interval's queries over all tokens of a layer, against one fused
    attention forward over the same.
    """
    shape, count = sizes.shape, sizes.interval
    rows, size = shape.heads // shape.kv_heads, shape.head_dim
    queries, keys = (
        torch.randn(heads, length, size, device=device, dtype=torch.bfloat16)
        for heads, length in ((shape.heads, count + 16), (shape.kv_heads, tokens))
    )
    values, settings = torch.randn_like(keys), Spectrogram()
    lse = torch.full((shape.heads, count + 16), float(tokens), device=device).log()
    positions = torch.arange(tokens, dtype=torch.int32, device=device)
    state = torch.zeros(tokens, settings.bins, device=device)

    def ours() -> None:
        for head, key in enumerate(keys):
            group = slice(head * rows, (head + 1) * rows)
            Observation(
                queries[group],
                lse[group],
                key,
                positions,
                size**-0.5,
                query_stop=tokens,
                new_start=tokens - count,
            ).fold(settings, state)

    def attention() -> None:
        scaled_dot_product_attention(
            queries[None, :, :count], keys[None], values[None], enable_gqa=True
        )

    timed = _in_turn(ours, attention, device)
    heads = f"{shape.heads}/{shape.kv_heads} heads of {size}"
    return _row("spectrogram over attention", device, tokens, timed, queries=count, shape=heads)


def _reading(model: PreTrainedModel, sizes: Sizes, policy: str, budget: float) -> list[Row]:
    """Peak memory of reading everything, then decoding at each length, ours with and without a
    graph, against `DynamicCache`.
    """
    device = model.device
    ids = random_ids(sizes.shape.vocabulary, 1, sizes.lengths[-1]).to(device)
    start_peak(device)
    cache = ManagedCache.for_model(
        model, policy, budget=budget, budget_scope="head", interval=sizes.interval
    )
    forks = _forks(model, cache, ids, sizes)
    row: Row = {
        "measure": "peak memory, 8B in nf4",
        "policy": policy,
        "budget": budget,
        "tokens": sizes.lengths[-1],
        "nbytes": peak_nbytes(device) if device.type == "cuda" else 0,
        "cache_nbytes": cache.nbytes,
        "full_nbytes": cache.full_nbytes,
        "device": name_of(device),
    }
    rows = [row]
    del cache
    for length, fork in forks.items():
        try:
            rows += _decoding(model, fork, ids[:, :length], sizes)
        except torch.OutOfMemoryError:
            measure = "decoding: DynamicCache does not fit"
            rows.append({"measure": measure, "tokens": length, "device": name_of(device)})
    return rows


def _forks(
    model: PreTrainedModel, cache: ManagedCache, ids: Tensor, sizes: Sizes
) -> dict[int, ManagedCache]:
    """Read all ids; a fork of the cache at each of the lengths."""
    forks, start = {}, 0
    for length in sizes.lengths:
        _read(model, cache, ids[:, start:length], sizes.interval)
        forks[length], start = cache.fork(), length
    return forks


def _read(model: PreTrainedModel, cache: Cache, ids: Tensor, chunk: int) -> None:
    for _ in forward.feed(model, cache, ids, chunk=chunk, last_only=True):
        pass


def _decoding(model: PreTrainedModel, ours: ManagedCache, ids: Tensor, sizes: Sizes) -> list[Row]:
    from namm_llm.engine.graph.decoder import StaticDecoder

    device, length = ids.device, ids.shape[1]
    managed = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    full = DynamicCache(config=model.config)
    _read(model, full, ids, 2 * sizes.interval)
    model.set_attn_implementation(managed)
    token, decoder = ids[:, -1:], StaticDecoder(model, ours, graph=device.type == "cuda")
    decoder.step(token)  # the graph is recorded before the clock starts

    def with_graph() -> None:
        decoder.greedy(token, sizes.decoded)

    def without() -> None:
        _decode(model, ours.fork(), token, length, sizes.decoded)

    def theirs() -> None:
        model.set_attn_implementation("sdpa")
        _decode(model, full, token, length, sizes.decoded)
        full.crop(-sizes.decoded)
        model.set_attn_implementation(managed)

    rows = []
    for name, mine in (("decoding, graph", with_graph), ("decoding", without)):
        timed, measure = _in_turn(mine, theirs, device), f"{name} over DynamicCache"
        rows.append(_row(measure, device, length, timed, tokens_decoded=sizes.decoded))
    return rows


def _decode(model: PreTrainedModel, cache: Cache, token: Tensor, length: int, count: int) -> None:
    positions = torch.tensor([[length]], device=token.device)
    for _ in range(count):
        token = forward.step(model, cache, token, positions).argmax(-1, keepdim=True)
        positions = positions + 1


def _in_turn(
    ours: Callable[[], None], theirs: Callable[[], None], device: torch.device
) -> list[tuple[float, float]]:
    """Seconds of both, one after the other, after a run of each that does not count."""
    _seconds(ours, device), _seconds(theirs, device)
    return [(_seconds(ours, device), _seconds(theirs, device)) for _ in range(PAIRS)]


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def _row(
    measure: str,
    device: torch.device,
    tokens: int,
    timed: list[tuple[float, float]],
    **more: object,
) -> Row:
    ratios = [ours / theirs for ours, theirs in timed]
    return {
        "measure": measure,
        "tokens": tokens,
        "ratio": statistics.median(ratios),
        "ratios": f"{min(ratios):.3f} .. {max(ratios):.3f}",
        "seconds": statistics.median(ours for ours, _ in timed),
        "base_seconds": statistics.median(theirs for _, theirs in timed),
        "device": name_of(device),
        **more,
    }
