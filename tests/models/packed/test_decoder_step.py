"""All layers in one call of the kernels, against the layers one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.engine import forward
from namm_llm.models.packed import fuse_layers, step
from namm_llm.namm import Namm
from namm_llm.policies import NammPolicy, policy_names
from tests.models.packed.conftest import distance
from tests.models.packed.test_packed_decoder import _CONFIGS, packed_model


@pytest.fixture
def fused(compiled: None, request: pytest.FixtureRequest) -> Any:
    """A packed model of the family that the test names, or a llama."""
    model = packed_model(_CONFIGS[getattr(request, "param", "llama")])
    assert fuse_layers(model) == 2
    return model


def decode(
    model: Any, cache: ManagedCache, ids: Tensor, sizes: list[int], *, stepped: bool
) -> Tensor:
    """Logits of a text that is read in pieces behind what the cache holds."""
    found, start = [], cache.seen_tokens()[0]
    for piece in ids.split(sizes, 1):
        positions = torch.arange(start, start + piece.shape[1]).expand(len(ids), -1)
        logits = step.decode_step(model, cache, piece, positions, 0) if stepped else None
        assert (logits is not None) is stepped
        if logits is None:
            logits = model(piece, position_ids=positions, past_key_values=cache).logits
        found.append(logits)
        start += piece.shape[1]
    return torch.cat(found, 1)


def read(model: Any, rows: int, tokens: int, policy: str = "replay", **settings: Any) -> Any:
    """A cache after a text, and what follows it."""
    settings = {"interval": 16, "budget": 20, **settings} if policy != "full" else settings
    policy = NammPolicy(Namm.zeros()) if policy == "namm" else policy
    cache = ManagedCache.for_population(model, [make_cache_config(policy, **settings)])
    ids = torch.randint(1, 128, (rows, tokens + 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        list(forward.feed(model, cache, ids[:, :tokens], chunk=23))
    return cache, ids[:, tokens:]


def tensors_of(cache: ManagedCache) -> dict[str, Tensor]:
    """All that the cache holds, by name."""
    return {
        f"{layer.index}.{row}.{name}": tensor
        for layer in cache.managed
        for row, sequence in enumerate(layer.sequences)
        for name, tensor in {
            **sequence.retained.columns(),
            **dict(zip(("wk", "wv"), sequence.window.columns(), strict=False)),
            **dict(zip(("q", "lse"), sequence.queries.columns(), strict=False)),
        }.items()
    }


@pytest.mark.parametrize(
    ("fused", "policy"),
    [(name, "full") for name in _CONFIGS]
    + [(name, "replay") for name in _CONFIGS if name != "mistral"],
    indirect=["fused"],
)  # mistral has sliding windows only: nothing to evict
def test_a_step_computes_what_the_layers_compute(fused: Any, policy: str) -> None:
    cache, ids = read(fused, 2, 45, policy)
    other = cache.fork()
    with torch.inference_mode():
        wanted = decode(fused, other, ids, [1] * 40, stepped=False)
        found = decode(fused, cache, ids, [1] * 40, stepped=True)
    assert distance(found, wanted) < 2e-5


@pytest.mark.parametrize("fused", ["mistral", "gemma3"], indirect=True)
def test_forks_share_a_sliding_window_and_go_on_alone(fused: Any) -> None:
    cache, ids = read(fused, 1, 45, "full")
    with torch.inference_mode():
        wanted = decode(fused, cache.fork(), ids[:, :20], [1] * 20, stepped=False)
        decode(fused, cache, ids[:, :7], [1] * 7, stepped=True)
        fork = cache.fork()
        decode(fused, cache, ids[:, 20:], [1] * 20, stepped=True)
        found = decode(fused, fork, ids[:, 7:20], [1] * 13, stepped=True)
    assert distance(found, wanted[:, 7:]) < 2e-5


@pytest.mark.parametrize("policy", policy_names())
def test_the_cache_is_the_same_after_steps(fused: Any, policy: str) -> None:
    """What policies observe, which tokens they keep, and what the kernel stored."""
    cache, ids = read(fused, 1, 45, policy)
    other = cache.fork()
    with torch.inference_mode():
        decode(fused, other, ids, [1] * 40, stepped=False)
        decode(fused, cache, ids, [1] * 40, stepped=True)
    assert cache.kept_tokens() == other.kept_tokens()
    assert cache.seen_tokens() == other.seen_tokens()
    assert cache.stats().eviction_steps == other.stats().eviction_steps
    wanted = tensors_of(other)
    for name, tensor in tensors_of(cache).items():
        assert torch.allclose(tensor, wanted[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("settings", [{"kv_bits": 8}, {"budget_scope": "model"}, {"sinks": 3}])
def test_settings_of_the_cache_are_kept(fused: Any, settings: dict[str, Any]) -> None:
    cache, ids = read(fused, 1, 48, interval=16, **settings)
    other = cache.fork()
    with torch.inference_mode():
        wanted = decode(fused, other, ids, [1] * 40, stepped=False)
        found = decode(fused, cache, ids, [1] * 40, stepped=True)
    assert distance(found, wanted) < 2e-5
    assert cache.kept_tokens() == other.kept_tokens()


def test_a_row_does_not_depend_on_its_batch_or_its_piece(fused: Any) -> None:
    alone, ids = read(fused, 1, 45)
    others, _ = read(fused, 2, 61)
    batch = ManagedCache.join([others, alone])
    ids = ids[:, :3]
    positions = torch.tensor([[61, 62, 63]] * 2 + [[45, 46, 47]])
    with torch.inference_mode():
        together = step.decode_step(fused, batch, ids.expand(3, -1), positions, 0)
        single = decode(fused, alone.fork(), ids, [1, 1, 1], stepped=True)
        last = step.decode_step(fused, alone, ids, positions[2:], 1)
    assert together is not None
    assert last is not None
    assert torch.equal(together[2], single[0])
    assert torch.equal(last[0], single[0, 2:])


def test_steps_can_be_taken_back(fused: Any) -> None:
    cache, ids = read(fused, 1, 45)
    with torch.inference_mode():
        wanted = decode(fused, cache.fork(), ids[:, :2], [1, 1], stepped=True)
        decode(fused, cache, ids[:, 5:7], [1, 1], stepped=True)
        cache.crop(-2)
        assert torch.equal(decode(fused, cache, ids[:, :2], [1, 1], stepped=True), wanted)


def test_threads_change_nothing(fused: Any) -> None:
    cache, ids = read(fused, 1, 400, budget=300, interval=128)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(decode(fused, cache.fork(), ids[:, :5], [1] * 5, stepped=True))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_bfloat16_is_off_by_its_rounding(compiled: None) -> None:
    model = packed_model(_CONFIGS["llama"], exact=False)
    fuse_layers(model)
    model.bfloat16()
    cache, ids = read(model, 1, 45)
    other = cache.fork()
    with torch.inference_mode():
        wanted = decode(model, other, ids[:, :3], [1] * 3, stepped=False)
        found = decode(model, cache, ids[:, :3], [1] * 3, stepped=True)
    assert found.dtype is torch.bfloat16
    assert distance(found, wanted) < 0.05


def test_other_models_and_caches_take_the_ordinary_way(compiled: None) -> None:
    """Nor a sliding window more than one token: each sees other rows."""
    positions, ids = torch.tensor([[40]]), torch.tensor([[5]])
    plain = packed_model(_CONFIGS["llama"])
    assert step.step_of(plain) is None
    mistral = packed_model(_CONFIGS["mistral"])
    fuse_layers(mistral)
    cache, more = read(mistral, 1, 45, "full")
    assert step.decode_step(mistral, cache, more[:, :2], positions, 1) is None
    assert step.decode_step(mistral, DynamicCache(), ids, positions, 1) is None
    fused = packed_model(_CONFIGS["llama"])
    fuse_layers(fused)
    cache, more = read(fused, 1, 45)
    assert step.decode_step(fused, cache, more[:, :17], positions, 1) is None  # too many
    assert step.decode_step(fused, cache, more[:, :4], positions, 1) is None  # a step is due before
    assert step.decode_step(fused, cache, more[:, :1].expand(2, -1), positions, 1) is None
    assert step.decode_step(fused, ManagedCache.for_model(fused), ids, positions, 1) is None


def test_a_change_of_precision_is_noticed(fused: Any) -> None:
    cache, ids = read(fused, 1, 45)
    with torch.inference_mode():
        first = decode(fused, cache.fork(), ids[:, :1], [1], stepped=True)
        for module in fused.modules():
            if hasattr(module, "exact"):
                module.exact = False
        second = decode(fused, cache.fork(), ids[:, :1], [1], stepped=True)
    assert not torch.equal(first, second)
    assert distance(second, first) < 0.05


def test_a_step_holds_no_model(compiled: None) -> None:
    import gc
    import weakref

    model = packed_model(_CONFIGS["llama"])
    fuse_layers(model)
    assert step.step_of(model) is not None
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
