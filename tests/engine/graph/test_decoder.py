"""Decoding in static shapes, the step that a CUDA graph records, against the normal path."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from namm_llm import ManagedCache, Namm
from namm_llm.engine.graph.decoder import StaticDecoder
from namm_llm.engine.graph.recorder import GraphRunner
from namm_llm.errors import CacheError
from tests.architectures import random_ids, random_llama

ON = [
    pytest.param("cpu", False, id="eager"),
    pytest.param("cuda", True, id="graph", marks=pytest.mark.gpu),
]
SETTINGS = {"budget": 20, "interval": 16}


@pytest.fixture(autouse=True)
def skip_without_gpu(request):
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU")


def read(model, policy: str = "replay", length: int = 50, **settings) -> ManagedCache:
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


def assert_same(found: ManagedCache, expected: ManagedCache) -> None:
    for layer, other in zip(found.managed, expected.managed, strict=True):
        one, two = layer.sequences[0], other.sequences[0]
        assert (one.seen, one.eviction_steps, one.window.count, one.queries.count) == (
            two.seen,
            two.eviction_steps,
            two.window.count,
            two.queries.count,
        )
        assert one.retained.lengths == two.retained.lengths
        assert torch.equal(one.retained.positions, two.retained.positions)
        for column, same in zip(
            one.window.columns() + one.queries.columns(),
            two.window.columns() + two.queries.columns(),
            strict=True,
        ):
            torch.testing.assert_close(column, same, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("device", "graph"), ON)
@pytest.mark.parametrize(
    "settings",
    [
        *({"policy": policy} for policy in ("replay", "h2o", "snapkv", "keydiff", "namm")),
        *(
            {"policy": policy, "budget_scope": "model"}
            for policy in ("replay", "h2o", "snapkv", "keydiff", "namm")
        ),
        {"policy": "replay", "kv_bits": 8},
        {"policy": "full", "budget": None},
    ],
    ids=lambda settings: " ".join(str(value) for value in settings.values()),
)
@pytest.mark.parametrize("length", [9, 48, 50])
def test_token_for_token(settings, length, device, graph):
    """Two updates on the way, the first in the middle of an interval that had begun; nothing
    retained before it, with 9 tokens.
    """
    model = random_llama().to(device)
    cache = read(model, length=length, **settings)
    before = [[t.clone() for t in layer.sequences[0].tensors()] for layer in cache.managed]
    token = torch.tensor([[7]], device=device)
    expected = cache.fork()
    decoder = StaticDecoder(model, cache, graph=graph)
    found = decoder.greedy(token, 40)[0].tolist()
    assert found == normal(model, expected, token, 40)
    finished = decoder.leave()
    assert_same(finished, expected)
    assert normal(model, finished, token, 20) == normal(model, expected, token, 20)
    for layer, tensors in zip(cache.managed, before, strict=True):
        for tensor, copy in zip(layer.sequences[0].tensors(), tensors, strict=True):
            # the cache that was given stays as it was; what it never wrote is NaN
            torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("device", "graph"), ON)
def test_a_batch_gives_what_its_sequences_give_alone(device, graph):
    """Updates fall due at different steps; sequences have settings of their own, and leave one
    after the other.
    """
    model = random_llama().to(device)
    caches = [
        read(model, length=48),
        read(model, "keydiff", 41, budget=8, interval=8),
        read(model, "h2o", 9, kv_bits=8),
    ]
    expected = [cache.fork() for cache in caches]
    tokens = torch.tensor([[7], [8], [9]], device=device)
    decoder = StaticDecoder(model, *caches, graph=graph)
    found = decoder.greedy(tokens, 10)
    wanted = [
        normal(model, cache, token[None], 10) for cache, token in zip(expected, tokens, strict=True)
    ]
    assert found.tolist() == wanted
    assert_same(decoder.leave(1), expected.pop(1))
    for cache, row in zip(expected, (0, 2), strict=True):
        wanted[row] = normal(model, cache, found[row : row + 1, -1:], 20)
    rest = decoder.greedy(found[[0, 2], -1:], 20)
    assert rest.tolist() == [wanted[0], wanted[2]]
    assert_same(decoder.leave(0), expected[0])
    assert decoder.greedy(rest[1:, -1:], 20)[0].tolist() == normal(
        model, expected[1], rest[1:, -1:], 20
    )
    assert_same(decoder.leave(), expected[1])


@pytest.mark.parametrize("length", [46, 47, 48])
def test_the_last_token_can_be_taken_back(length):
    """Also the one that makes an update due: it is judged only when the next one comes."""
    model = random_llama()
    cache = read(model, length=length)
    expected = cache.fork()
    decoder, token = StaticDecoder(model, cache, graph=False), torch.tensor([[7]])
    assert decoder.greedy(token, 2)[0].tolist()[:1] == normal(model, expected, token, 1)
    assert_same(decoder.leave(without_last=True), expected)


class Recorder(TorchDispatchMode):
    """Every operation with the shapes and types of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        shapes = [
            (tuple(t.shape), t.dtype)
            for t in (out if isinstance(out, (tuple, list)) else [out])
            if isinstance(t, torch.Tensor)
        ]
        self.calls.append(f"{func} {shapes}")
        return out


@pytest.mark.parametrize("rows", [1, 3])
def test_steps_between_two_updates_are_the_same_and_never_wait(rows):
    """What a graph needs: the same operations in the same shapes whatever the lengths, and no
    number read back by the host.
    """
    model = random_llama()
    decoder = StaticDecoder(model, *(read(model) for _ in range(rows)), graph=False)
    token, steps = torch.full((rows, 1), 7), []
    decoder.step(token)
    for _ in range(8):
        with Recorder() as recorder:
            decoder.step(token)
        steps.append(recorder.calls)
    assert all(step == steps[0] for step in steps)
    waits = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
    )  # numbers for the host, shapes that depend on values
    found = [call for call in steps[0] if any(f"aten.{name}." in call for name in waits)]
    assert not found


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_for_nothing():
    """torch itself watches: recorded or not, and with the next token chosen on the way."""
    model = random_llama().to("cuda")
    tokens = torch.full((3, 1), 7, device="cuda")
    for graph in (False, True):
        decoder = StaticDecoder(model, *(read(model, length=48) for _ in range(3)), graph=graph)
        tokens = decoder.greedy(tokens, 3)[:, -1:]
        torch.cuda.set_sync_debug_mode("error")
        try:
            tokens = decoder.greedy(tokens, 8)[:, -1:]
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_settled_tokens_are_read_where_they_lie():
    """Many questions about one document share its tokens, and no copy of them is made to decode."""
    model = random_llama()
    document = read(model, length=48)
    decoder = StaticDecoder(model, document.fork(), document.fork(), graph=False)
    decoder.step(torch.tensor([[7], [8]]))
    for cache in (decoder.leave(), decoder.leave()):
        for layer, own in zip(document.managed, cache.managed, strict=True):
            assert layer.sequences[0].retained.keys is own.sequences[0].retained.keys


def test_memory_is_free_as_soon_as_nobody_holds_a_cache_or_its_decoder():
    """Without Python's garbage collector, which knows nothing of a device's memory."""
    model = random_llama()
    gc.collect()
    gc.disable()
    try:
        cache = read(model)
        fork = cache.fork()
        decoder = StaticDecoder(model, cache, fork, graph=False)
        decoder.greedy(torch.tensor([[7], [8]]), 20)
        left = decoder.leave()
        held = [
            weakref.ref(t)
            for c in (cache, fork, left)
            for layer in c.managed
            for t in layer.sequences[0].tensors()
        ]
        held += [
            weakref.ref(buffer)
            for row in decoder._rows
            for layer in row.layers
            for buffer in layer._buffers
        ]
        del cache, fork, decoder, left
        assert not [ref for ref in held if ref() is not None]
    finally:
        gc.enable()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there a graph can be recorded")
def test_a_step_that_cannot_be_recorded_goes_on_as_it_stands():
    steps, refused = [], []
    recording = GraphRunner(torch.device("cpu"), record=True, refused=refused.append)
    for _ in range(4):
        recording.run(lambda: steps.append(1))
    assert len(steps) == 4
    assert len(refused) == 1, "it tries once"


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
