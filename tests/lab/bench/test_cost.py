"""The arithmetic against real caches and real weights."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from namm_lab.bench.cost import cost_of
from namm_lab.bench.shapes import SHAPES, Shape, random_ids, random_model, random_namm
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config

SMALL = Shape("small", 32, 64, 2, 4, 2, 64, 8, positions=4096)
TOKENS = 8 * 32  # right before an update the interval is full
BEFORE = TOKENS - 1


def test_the_full_cache_is_what_transformers_holds():
    model = random_model(SMALL, torch.float32)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(random_ids(64, 3, 70), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cost_of(SMALL, 70, make_cache_config(), torch.float32, batch=3).full_nbytes == held


@pytest.mark.parametrize("tied", [True, False])
def test_weights(tied):
    shape = Shape("s", 32, 64, 2, 4, 2, 64, 8, tied=tied)
    assert shape.weights_nbytes(torch.bfloat16) == sum(
        weight.nbytes for weight in random_model(shape, torch.bfloat16).parameters()
    )


def test_the_known_shapes_have_the_known_sizes():
    """https://huggingface.co/meta-llama: 1.24, 8.03 and 70.6 billion."""
    sizes = {name: round(shape.parameters / 1e9, 2) for name, shape in SHAPES.items()}
    assert (sizes["1b"], sizes["8b"], sizes["70b"]) == (1.24, 8.03, 70.55)
    assert 90e6 < SHAPES["100m"].parameters < 110e6


@pytest.mark.parametrize("policy", ["replay", "namm", "knorm", "h2o", "snapkv", "full"])
@pytest.mark.parametrize("budget", ["0.25", "40"])
@pytest.mark.parametrize("tokens", [20, BEFORE, TOKENS + 5])
@pytest.mark.parametrize("kv_bits", [None, 8])
def test_the_cache_holds_what_was_computed(policy, budget, tokens, kv_bits):
    """Byte for byte; only the empty room in buffers is not counted."""
    eviction = make_cache_config(
        policy,
        budget=None if policy == "full" else budget,
        namm=random_namm() if policy == "namm" else None,
        interval=32,
        budget_scope="head",
        kv_bits=kv_bits,
    )
    model = random_model(SMALL, torch.float32)
    cache = ManagedCache.for_model(model, eviction)
    with torch.inference_mode():
        model(random_ids(64, 1, tokens), past_key_values=cache, use_cache=True)
    cost = cost_of(SMALL, tokens, eviction, torch.float32)
    held = sum(live_nbytes(sequence) for layer in cache.managed for sequence in layer.sequences)
    assert cost.cache_nbytes == held


def live_nbytes(sequence) -> int:
    retained = sum(tensor.nbytes for tensor in sequence.retained.columns().values())
    return retained + sum(
        column.numel() * column.element_size()
        for rows in (sequence.window, sequence.queries)
        for column in rows.columns()
    )


@pytest.mark.parametrize(("quantization", "nbytes"), [("int8", 1.0), ("nf4", 0.515625)])
def test_quantised_weights(quantization, nbytes):
    shape = SHAPES["8b"]
    rest = shape.parameters - shape.linear_parameters
    assert (
        shape.weights_nbytes(torch.bfloat16, quantization)
        == round(shape.linear_parameters * nbytes) + 2 * rest
    )
