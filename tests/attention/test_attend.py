"""The compiled attention of a few new tokens against its definition in torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from namm_llm.attention.cpu import attend
from namm_llm.attention.grouped import by_torch, grouped_attention
from namm_llm.tokens import HeadTokens, RaggedTokens

Case = tuple[Tensor, RaggedTokens, Tensor, Tensor]


@pytest.fixture(autouse=True, scope="module")
def _kernel() -> None:
    if attend.load() is None:
        pytest.skip("no compiled kernels here")


def case(
    lengths: list[int],
    *,
    rows: int = 3,
    size: int = 64,
    new: int = 1,
    before: int = 3,
    dtype: torch.dtype = torch.float32,
    quantised: bool = False,
) -> Case:
    """Queries, retained tokens and window; `rows` query heads of each KV head."""
    generator = torch.Generator().manual_seed(sum(lengths) + size + new)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, size, generator=generator).to(dtype)

    heads = []
    for count in lengths:
        at = torch.arange(count, dtype=torch.int32)
        head = HeadTokens(made(count), made(count), at, torch.zeros(count, 0))
        heads.append(head.quantised() if quantised else head)
    retained = RaggedTokens.gather(heads, [None] * len(heads))
    groups = len(lengths)
    window = made(groups, before + new), made(groups, before + new)
    return (made(groups * rows, new), retained, *window)


def wide(case: Case) -> Case:
    """The same numbers in float32."""
    query, retained, keys, values = case
    floats = retained.floats()
    floats = replace(floats, keys=floats.keys.float(), values=floats.values.float())
    return query.float(), floats, keys.float(), values.float()


def compare(given: Case, tolerance: float) -> None:
    found = attend.attend(*given, scale=0.2)
    assert found is not None
    for one, other in zip(found, by_torch(*wide(given), scale=0.2), strict=True):
        assert torch.allclose(one.float(), other, rtol=tolerance, atol=tolerance)


@given(
    lengths=st.lists(st.sampled_from([0, 1, 2, 7, 255, 256, 257, 600]), min_size=1, max_size=4),
    rows=st.integers(1, 9),
    size=st.sampled_from([8, 20, 64, 80, 96, 128, 256]),
    new=st.sampled_from([1, 2, 5, 16]),
    before=st.sampled_from([0, 1, 250, 256, 300]),
    quantised=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_it_is_attention(
    lengths: list[int], rows: int, size: int, new: int, before: int, quantised: bool
) -> None:
    compare(case(lengths, rows=rows, size=size, new=new, before=before, quantised=quantised), 2e-5)


@pytest.mark.parametrize("size", [20, 64, 128])
def test_bfloat16_is_rounded_only_at_the_end(size: int) -> None:
    compare(case([0, 30, 700], size=size, new=2, dtype=torch.bfloat16), 1e-2)


@pytest.mark.parametrize("quantised", [False, True])
def test_queries_do_not_depend_on_each_other(quantised: bool) -> None:
    query, retained, keys, values = case([300, 0, 41], new=15, before=250, quantised=quantised)
    together = attend.attend(query, retained, keys, values, scale=0.2)
    assert together is not None
    for token in range(15):
        stop = 251 + token
        alone = attend.attend(
            query[:, token : token + 1], retained, keys[:, :stop], values[:, :stop], scale=0.2
        )
        assert alone is not None
        assert torch.equal(alone[0][:, 0], together[0][:, token])
        assert torch.equal(alone[1][:, 0], together[1][:, token])


def test_threads_change_nothing() -> None:
    given, threads, found = case([2000, 1000, 30], before=500), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(attend.attend(*given, scale=0.2))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_large_logits_and_numbers_that_are_none() -> None:
    query, retained, keys, values = case([5, 400], before=2)
    compare((query * 1000, retained, keys, values), 1e-3)
    keys[1, 0, 0] = torch.nan
    found = attend.attend(query, retained, keys, values, scale=0.2)
    assert found is not None
    assert found[0][3:].isnan().all()
    assert found[0][:3].isfinite().all()


def test_what_the_kernel_does_not_take_is_computed_by_torch() -> None:
    given = case([5, 40], new=2)
    query, retained, keys, values = given
    halves = case([5, 40], new=2, dtype=torch.float16)
    others: list[Case] = [
        halves,
        case([5, 40], new=17, size=20),
        (query.clone().requires_grad_(), retained, keys, values),
    ]
    for other in others:
        assert attend.attend(*other, scale=0.2) is None
        wanted = by_torch(*other, scale=0.2)
        assert torch.equal(grouped_attention(*other, scale=0.2)[0], wanted[0])
    assert torch.equal(
        grouped_attention(*given, scale=0.2)[0],
        attend.attend(*given, scale=0.2)[0],  # type: ignore[index]
    )


def test_a_kernel_with_other_numbers_is_noticed() -> None:
    assert attend.agrees(attend.load())
    assert not attend.agrees(lambda *_: 0)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    attend.load.cache_clear()
    monkeypatch.setattr(attend, "load_library", lambda: "no compiler")
    yield
    attend.load.cache_clear()


def test_without_a_compiler_torch_computes(without_kernels: None) -> None:
    given = case([5, 40])
    assert attend.attend(*given, scale=0.2) is None
    assert torch.equal(grouped_attention(*given, scale=0.2)[0], by_torch(*given, scale=0.2)[0])
