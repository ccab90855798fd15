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

import bitsandbytes
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from namm_lab.reports.rows import Row
from namm_llm import ManagedCache, Observation, Spectrogram
from namm_llm.engine.graph.decoder import StaticDecoder

_PAIRS = 5


@dataclass(frozen=True)
class Sizes:
    """config: of the model. lengths: tokens at which decoding is timed; the last one is the whole
    text. chunk: tokens of a forward pass.
    """

    config: dict[str, int]
    lengths: tuple[int, ...]
    decoded: int
    chunk: int
    interval: int


LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
}
TINY = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
REAL = Sizes(LLAMA_8B, (32_000, 128_000), decoded=64, chunk=512, interval=512)
DRY = Sizes(TINY, (64, 128), decoded=8, chunk=32, interval=32)


@torch.no_grad()
def compare(*, dry: bool, policy: str, budget: float) -> list[Row]:
    """All rows. Needs a CUDA device unless `dry`."""
    sizes = DRY if dry else REAL
    device = torch.device("cpu" if dry else "cuda")
    rows = [_spectrogram(sizes, tokens, device) for tokens in sizes.lengths]
    model = random_nf4(sizes.config, device)
    return rows + _reading(model, sizes, policy, budget)


def name_of(device: torch.device) -> str:
    """The card, for the rows."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu (dry run)"


def _spectrogram(sizes: Sizes, tokens: int, device: torch.device) -> Row:
    """The statistic of one interval's queries over all tokens of a layer, against one fused
    attention forward over the same.
    """
    config = sizes.config
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size, count = config["hidden_size"] // heads, sizes.interval
    dtype = torch.bfloat16
    queries, keys = (
        torch.randn(n, t, size, device=device, dtype=dtype)
        for n, t in ((heads, count + 16), (groups, tokens))
    )
    values, settings = torch.randn_like(keys), Spectrogram()
    lse = torch.full((heads, count + 16), float(tokens), device=device).log()
    positions = torch.arange(tokens, dtype=torch.int32, device=device)
    ema = torch.zeros(tokens, settings.bins, device=device)
    rows = heads // groups

    def ours() -> None:
        for group in range(groups):
            own = slice(group * rows, (group + 1) * rows)
            part = Observation(
                queries[own],
                lse[own],
                keys[group],
                positions,
                size**-0.5,
                stop=tokens,
                fresh=tokens - count,
            )
            part.spectrogram(settings, ema)

    def attention() -> None:
        scaled_dot_product_attention(
            queries[None, :, :count], keys[None], values[None], enable_gqa=True
        )

    found, base = _in_turn(ours, attention, device)
    return _row(
        "spectrogram over attention",
        device,
        tokens,
        found,
        base,
        queries=count,
        shape=f"{heads}/{groups} heads of {size}",
    )


def _reading(model: PreTrainedModel, sizes: Sizes, policy: str, budget: float) -> list[Row]:
    """Peak memory of reading everything, then decoding at each length, ours with and without a
    graph, against `DynamicCache`.
    """
    device = next(model.parameters()).device
    ids = torch.randint(
        0,
        model.config.vocab_size,
        (1, sizes.lengths[-1]),
        generator=torch.Generator().manual_seed(1),
    ).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    cache = ManagedCache.for_model(
        model, policy, budget=budget, budget_scope="head", interval=sizes.interval
    )
    forks = _read(model, cache, ids, sizes)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    rows: list[Row] = [
        {
            "measure": "peak memory, 8B in nf4",
            "policy": policy,
            "budget": budget,
            "tokens": sizes.lengths[-1],
            "nbytes": peak,
            "cache_nbytes": cache.nbytes,
            "full_nbytes": cache.full_nbytes,
            "device": name_of(device),
        }
    ]
    del cache
    for length, fork in forks.items():
        try:
            rows += _decoding(model, fork, ids[:, :length], sizes)
        except torch.OutOfMemoryError:
            rows.append(
                {
                    "measure": "decoding: DynamicCache does not fit",
                    "tokens": length,
                    "device": name_of(device),
                }
            )
    return rows


def _read(
    model: PreTrainedModel, cache: ManagedCache, ids: Tensor, sizes: Sizes
) -> dict[int, ManagedCache]:
    """Read all ids; a fork of the cache at each of the lengths."""
    forks = {}
    for start in range(0, ids.shape[1], sizes.chunk):
        part = ids[:, start : start + sizes.chunk]
        at = torch.arange(start, start + part.shape[1], device=ids.device)[None]
        model(input_ids=part, position_ids=at, past_key_values=cache, logits_to_keep=1)
        if start + part.shape[1] in sizes.lengths:
            forks[start + part.shape[1]] = cache.fork()
    return forks


def _decoding(model: PreTrainedModel, ours: ManagedCache, ids: Tensor, sizes: Sizes) -> list[Row]:
    device, length = ids.device, ids.shape[1]
    own = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    full = DynamicCache()
    for part in ids.split(2 * sizes.chunk, dim=1):
        model(input_ids=part, past_key_values=full, logits_to_keep=1)
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
        model.set_attn_implementation(own)

    model.set_attn_implementation(own)
    rows = []
    for name, mine in (("decoding, graph", with_graph), ("decoding", without)):
        found, base = _in_turn(mine, theirs, device)
        rows.append(
            _row(
                f"{name} over DynamicCache",
                device,
                length,
                found,
                base,
                tokens_decoded=sizes.decoded,
            )
        )
    return rows


def _decode(
    model: PreTrainedModel,
    cache: ManagedCache | DynamicCache,
    token: Tensor,
    length: int,
    count: int,
) -> None:
    at = torch.tensor([[length]], device=token.device)
    for _ in range(count):
        logits = model(
            input_ids=token, position_ids=at, past_key_values=cache, logits_to_keep=1
        ).logits
        token, at = logits[:, -1:].argmax(-1), at + 1


def _in_turn(
    ours: Callable[[], None], theirs: Callable[[], None], device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of both, one after the other, after a run of each that does not count."""
    _seconds(ours, device), _seconds(theirs, device)
    pairs = [(_seconds(ours, device), _seconds(theirs, device)) for _ in range(_PAIRS)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _row(
    measure: str,
    device: torch.device,
    tokens: int,
    ours: list[float],
    theirs: list[float],
    **more: object,
) -> Row:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "measure": measure,
        "tokens": tokens,
        "ratio": statistics.median(ratios),
        "ratios": f"{min(ratios):.3f} .. {max(ratios):.3f}",
        "seconds": statistics.median(ours),
        "base_seconds": statistics.median(theirs),
        "device": name_of(device),
        **more,
    }


def random_nf4(config: dict[str, int], device: torch.device) -> LlamaForCausalLM:
    """A Llama of this shape with random weights, its layers in nf4, made on the device one matrix
    at a time.
    """
    settings = LlamaConfig(**config, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(settings).to(torch.bfloat16)
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if isinstance(linear, nn.Linear):
                    setattr(block, name, _nf4(linear, device))
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.is_meta:
                fresh = (
                    torch.ones
                    if weight.dim() == 1
                    else lambda *shape, **kind: torch.randn(*shape, **kind).mul_(0.02)
                )
                setattr(
                    module,
                    name,
                    nn.Parameter(
                        fresh(*weight.shape, dtype=weight.dtype, device=device), requires_grad=False
                    ),
                )
    model.model.rotary_emb = LlamaRotaryEmbedding(settings).to(device)
    return model.eval()


def _nf4(linear: nn.Linear, device: torch.device) -> nn.Module:
    weight = torch.randn(
        linear.out_features, linear.in_features, dtype=torch.bfloat16, device=device
    ).mul_(0.02)
    made = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
    )
    made.weight = bitsandbytes.nn.Params4bit(
        weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    return made.to(device)
