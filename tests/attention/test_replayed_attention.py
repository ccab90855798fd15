"""The largest attention under query replay, worked out block by block, against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_llm.attention import backend
from namm_llm.attention import observation as module
from namm_llm.attention.fold import Sum
from namm_llm.attention.observation import Observation, Scratch
from namm_llm.attention.rope import Rotation

SIZE, COUNT, SEEN = 16, 40, 1000


@pytest.fixture(autouse=True)
def _by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition; its compiled kernel is tested in test_prefill_kernels.py."""
    monkeypatch.delitem(backend._ON_CPU, "max_replayed_attention")


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observe(
    tokens: int, heads: int, dtype: torch.dtype = torch.float32, *, seed: int = 0
) -> Observation:
    return Observation(
        queries=draw(heads, COUNT, SIZE, seed=seed).mul(3).to(dtype),
        lse=torch.full((heads, COUNT), torch.nan),  # replayed queries have their own
        keys=draw(tokens, SIZE, seed=seed + 1).to(dtype),
        positions=torch.arange(SEEN - tokens, SEEN, dtype=torch.int32),
        scale=SIZE**-0.5,
        query_stop=SEEN,
        new_start=SEEN - COUNT + 8,
        rotation=Rotation(tuple(10_000 ** (-i / (SIZE // 2)) for i in range(SIZE // 2))),
    )


def by_definition(observation: Observation) -> torch.Tensor:
    """Written out in double precision: every query of the window behind the text, every token, the
    largest share of each.
    """
    turned = observation.rotation.turn(
        observation.queries, observation.query_stop - observation.new_start
    ).double()
    return (
        (turned @ observation.keys.double().T * observation.scale).softmax(-1).amax((0, 1)).float()
    )


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def products(request, monkeypatch):
    """Whatever this machine's own choice is."""
    monkeypatch.setattr(module, "_replay_dtype", lambda device: request.param)
    return request.param


@pytest.fixture(
    params=[(8, 1), (60, 7), (2**18, 64)],
    ids=["rows of 1", "blocks that leave a rest", "one block"],
)
def blocks(request, monkeypatch):
    """Small blocks, so that a few tokens need several."""
    floats, fewest = request.param
    monkeypatch.setattr(module, "BLOCK_FLOATS", floats)
    monkeypatch.setattr(module, "_FEWEST_ROWS", fewest)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("tokens", [1, 3, 37])
@pytest.mark.parametrize("heads", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_largest_replayed_attention(tokens, heads, dtype, products):
    observation = observe(tokens, heads, dtype)
    found = observation.max_replayed_attention(SEEN - COUNT)
    assert found.dtype == torch.float32
    again = by_definition(observation)
    if products == torch.float32:
        torch.testing.assert_close(found, again, atol=1e-6, rtol=1e-4)
    else:
        torch.testing.assert_close(found.log(), again.log(), atol=0.06, rtol=0)


@pytest.mark.usefixtures("blocks")
def test_only_the_queries_asked_for_count(products):
    observation = observe(37, 2)
    one = observation.max_replayed_attention(SEEN - 1)
    assert (one <= observation.max_replayed_attention(SEEN - COUNT) + 1e-6).all()
    assert one.sum() <= 2 + (
        1e-5 if products == torch.float32 else 0.02
    )  # two heads give one share of 1 each
    assert torch.equal(
        observation.max_replayed_attention(SEEN - 3 * COUNT),
        observation.max_replayed_attention(SEEN - COUNT),
    )  # no more is known


@pytest.mark.usefixtures("blocks", "products")
def test_logits_of_any_size_are_finite():
    observation = observe(37, 3)
    found = replace(observation, keys=observation.keys * 1e4).max_replayed_attention(SEEN - COUNT)
    assert found.isfinite().all()
    assert ((found >= 0) & (found <= 1 + 1e-5)).all()
    assert found.max() > 0.99


@pytest.mark.usefixtures("blocks", "products")
def test_heads_that_share_memory_do_not_see_one_another():
    """The scratch is full of NaN, then of the numbers of a larger head."""
    alone = [
        observe(tokens, 3, seed=tokens).max_replayed_attention(SEEN - COUNT)
        for tokens in (37, 5, 20)
    ]
    scratch = Scratch()
    scratch.take(10_000, torch.empty(0)).fill_(torch.nan)
    for tokens, expected in zip((37, 5, 20), alone, strict=True):
        shared = replace(observe(tokens, 3, seed=tokens), scratch=scratch)
        assert torch.equal(shared.max_replayed_attention(SEEN - COUNT), expected)


@pytest.mark.usefixtures("blocks")
def test_all_that_uses_the_scratch_can_take_turns():
    shared, alone = (
        replace(observe(37, 2), lse=torch.full((2, COUNT), 4.0)),
        replace(observe(37, 2), lse=torch.full((2, COUNT), 4.0)),
    )
    kept = shared.rows(SEEN - 9, SEEN - 2)
    total = shared.fold(Sum(), torch.zeros(37, 1), start=SEEN - 20)[:, 0]
    shared.max_replayed_attention(SEEN - COUNT)
    assert torch.equal(kept, alone.rows(SEEN - 9, SEEN - 2))
    torch.testing.assert_close(total, alone.rows(SEEN - 20, SEEN).sum(0))


def test_scratch_is_got_once_and_grows():
    scratch, like = Scratch(), torch.empty(0)
    first = scratch.take(100, like)
    assert first.shape == (100,)
    assert scratch.take(60, like).data_ptr() == first.data_ptr()
    assert scratch.take(200, like).shape == (200,)
    assert scratch.take(100, like.double()).dtype == torch.float64


@pytest.mark.parametrize("planes", [SIZE // 2, SIZE // 4])
def test_turning_takes_a_factor_and_leaves_the_queries_as_they_are(planes):
    rotation, queries = (
        Rotation(tuple(0.1 * (i + 1) for i in range(planes))),
        draw(3, 5, SIZE, seed=4),
    )
    before = queries.clone()
    torch.testing.assert_close(rotation.turn(queries, 7, 0.25), rotation.turn(queries, 7) * 0.25)
    assert torch.equal(queries, before)
    torch.testing.assert_close(
        rotation.turn(rotation.turn(queries, 7), -7), queries, atol=1e-5, rtol=0
    )


def test_tokens_that_come_one_by_one_are_no_new_sizes_of_products(products, monkeypatch):
    """In bfloat16 oneDNN compiles a kernel for each size and keeps it, so memory grew with every
    eviction step that changed a head's length.
    """
    sizes, multiply = set(), torch.mm

    def noted(left, right, **more):
        sizes.add((left.shape, right.shape))
        return multiply(left, right, **more)

    monkeypatch.setattr(torch, "mm", noted)
    for tokens in range(300, 400, 7):
        observe(tokens, heads=2).max_replayed_attention(SEEN - COUNT)
    assert len(sizes) == 1
