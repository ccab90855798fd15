"""The compiled kernels of reading, attention of many tokens and query replay, against torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from namm_llm.attention.cpu import prefill, replay
from namm_llm.attention.grouped import by_torch, grouped_attention
from tests.attention.test_attend import case, wide


@pytest.fixture(autouse=True, scope="module")
def _kernels() -> None:
    if prefill.load() is None or replay.load() is None:
        pytest.skip("no compiled kernels here")


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 15, 127, 128, 129, 300]), min_size=1, max_size=3),
    rows=st.integers(1, 5),
    size=st.sampled_from([32, 64, 96]),
    new=st.integers(17, 140),
    before=st.sampled_from([0, 1, 100, 200]),
    quantised=st.booleans(),
)
def test_any_lengths_give_what_torch_gives(
    lengths: list[int], rows: int, size: int, new: int, before: int, quantised: bool
) -> None:
    given = case(lengths, rows=rows, size=size, new=new, before=before, quantised=quantised)
    found = prefill.attend(*given, scale=size**-0.5)
    assert found is not None
    for one, other in zip(found, by_torch(*wide(given), scale=size**-0.5), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 30.0, 300.0])
def test_small_and_large_logits(factor: float) -> None:
    query, retained, keys, values = case([50, 300], new=40, before=60)
    given = query * factor, retained, keys, values
    found = prefill.attend(*given, scale=1.0)
    assert found is not None
    for one, other in zip(found, by_torch(*given, scale=1.0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_the_number_of_threads_changes_no_bit() -> None:
    given = case([200, 700, 0], new=100, before=50)
    queries, keys = torch.randn(2, 1000, 64, generator=torch.Generator().manual_seed(3))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            attended = prefill.attend(*given, scale=0.1)
            assert attended is not None
            found.append((*attended, replay.max_attention(queries[None], keys, scale=1.0)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_what_the_kernel_does_not_take_is_left_to_torch() -> None:
    query, retained, keys, values = case([40, 9], size=20, new=30)
    assert prefill.attend(query, retained, keys, values, scale=0.2) is None
    wanted = by_torch(query, retained, keys, values, scale=0.2)
    for one, other in zip(
        grouped_attention(query, retained, keys, values, scale=0.2), wanted, strict=True
    ):
        assert torch.equal(one, other)
    assert replay.max_attention(torch.ones(1, 1, 3), torch.ones(2, 3), scale=1.0) is None


def test_not_a_number_stays_one() -> None:
    query, retained, keys, values = case([40], new=30)
    query[0, 5] = torch.nan
    found = prefill.attend(query, retained, keys, values, scale=0.2)
    assert found is not None
    assert found[0][0, 5].isnan().all()
    assert found[0][0, 6].isfinite().all()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 60),
    count=st.integers(1, 150),
    size=st.sampled_from([2, 18, 64, 256]),
    outlier=st.sampled_from([1.0, 30.0]),
)
def test_replay_ranks_as_torch_does(rows: int, count: int, size: int, outlier: float) -> None:
    generator = torch.Generator().manual_seed(rows * count)
    queries, keys = (torch.randn(n, size, generator=generator) for n in (rows, count))
    keys[:, 0] *= outlier  # as keys with a large bias have it
    queries *= 2 * size**-0.5
    found = replay.max_attention(queries[None], keys, scale=1.0)
    assert found is not None
    wanted = (queries.double() @ keys.double().T).log_softmax(-1).amax(0)
    least = -87.0  # below, float32 has only its smallest numbers
    found, wanted = found.log().double().clamp_min(least), wanted.clamp_min(least)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-2)


@pytest.mark.parametrize("size", [64, 512, 2048])
def test_products_of_codes_do_not_overflow(size: int) -> None:
    same = torch.full((5, size), 3.0)
    mixed = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    for queries in (same, -same, mixed):
        found = replay.max_attention(queries[None] * size**-0.5, same, scale=1.0)
        assert found is not None
        torch.testing.assert_close(found, torch.full((5,), 0.2), rtol=1e-3, atol=0)
