"""Decoding in static shapes, the step that a CUDA graph records, against the normal path."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from namm_llm import ManagedCache, Namm
from namm_llm.cache.static import StaticDecoder, bucket
from namm_llm.errors import CacheError
from tests.models import random_ids, random_llama

ON = [pytest.param("cpu", False, id="eager"), pytest.param("cuda", True, id="graph", marks=pytest.mark.gpu)]
SETTINGS = {"budget": 20, "interval": 16}


@pytest.fixture(autouse=True)
def skip_without_gpu(request):
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU")


def read(model, policy: str = "reread", length: int = 50, **settings) -> ManagedCache:
    if policy == "namm":
        settings["namm"] = random_namm().to(model.device)
    cache = ManagedCache.for_model(model, policy, **(SETTINGS | settings))
    for ids in random_ids(1, length).to(model.device).split(SETTINGS["interval"], dim=1):
        model(ids, past_key_values=cache)
    return cache


def random_namm() -> Namm:
    theta = 0.1 * torch.randn(Namm.zeros().vector.shape, generator=torch.Generator().manual_seed(0))
    return Namm.from_vector(theta, torch.full((17,), 0.02), torch.full((17,), 0.01))


def normal(model, cache: ManagedCache, token: torch.Tensor, count: int) -> list[int]:
    found = []
    for _ in range(count):
        seen = torch.tensor([cache.seen_tokens()], device=token.device)
        token = model(token, past_key_values=cache, position_ids=seen).logits[:, -1:].argmax(-1)
        found.append(int(token))
    return found


@pytest.mark.parametrize(("device", "graph"), ON)
@pytest.mark.parametrize("policy", ["reread", "h2o", "snapkv", "keydiff", "namm"])
@pytest.mark.parametrize("compete", ["head", "model"])
@pytest.mark.parametrize("length", [48, 50])
def test_token_for_token(policy, compete, length, device, graph):
    """Two updates on the way, the first in the middle of an interval that had begun."""
    model = random_llama().to(device)
    cache = read(model, policy, length, compete=compete)
    before = [[t.clone() for t in layer.sequences[0].tensors()] for layer in cache.managed]
    token = torch.tensor([[7]], device=device)
    expected = cache.fork()
    decoder = StaticDecoder(model, cache, graph=graph)
    found = decoder.greedy(token, 40).tolist()
    assert found == normal(model, expected, token, 40)
    finished = decoder.finish()
    for layer, other in zip(finished.managed, expected.managed, strict=True):
        one, two = layer.sequences[0], other.sequences[0]
        assert (one.seen, one.updates, one.recent.count, one.queries.count) == (two.seen, two.updates, two.recent.count, two.queries.count)
        assert one.settled.lengths == two.settled.lengths
        assert torch.equal(one.settled.positions, two.settled.positions)
    assert normal(model, finished, token, 20) == normal(model, expected, token, 20)
    for layer, tensors in zip(cache.managed, before, strict=True):
        for tensor, copy in zip(layer.sequences[0].tensors(), tensors, strict=True):
            # the cache that was given stays as it was; what it never wrote is NaN
            torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)


class Recorder(TorchDispatchMode):
    """Every operation with the shapes and types of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        shapes = [(tuple(t.shape), t.dtype) for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, torch.Tensor)]
        self.calls.append(f"{func} {shapes}")
        return out


def test_steps_between_two_updates_are_the_same_and_never_wait():
    """What a graph needs: the same operations in the same shapes whatever the lengths, and no number read back by the host."""
    model = random_llama()
    decoder = StaticDecoder(model, read(model), graph=False)
    token, steps = torch.tensor([[7]]), []
    decoder.step(token)
    for _ in range(8):
        with Recorder() as recorder:
            decoder.step(token)
        steps.append(recorder.calls)
    assert all(step == steps[0] for step in steps)
    waits = ("_local_scalar_dense", "nonzero", "masked_select")  # numbers for the host, shapes that depend on values
    found = [call for call in steps[0] if any(f"aten.{name}." in call for name in waits)]
    assert not found


def test_buckets_hold_what_they_must_and_little_more():
    for tokens in (0, 1, 16, 17, 100, 1023, 1024, 1025, 100_000):
        assert tokens <= bucket(tokens) <= max(tokens + 16, tokens * 1.25)
    assert len({bucket(tokens) for tokens in range(1024, 2048)}) <= 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: ManagedCache.for_model(model, "keydiff", budget=20), "holds 0"),
        (lambda model: ManagedCache.join([read(model), read(model)]), "holds 2"),
    ],
)
def test_what_cannot_be_decoded_is_refused(make, message):
    model = random_llama()
    with pytest.raises(CacheError, match=message):
        StaticDecoder(model, make(model), graph=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there a graph can be recorded")
def test_a_graph_needs_a_gpu():
    model = random_llama()
    with pytest.raises(CacheError, match="graph=False"):
        StaticDecoder(model, read(model))
