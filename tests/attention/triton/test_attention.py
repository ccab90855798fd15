"""Attention over retained and recent tokens: the kernels against the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_llm.attention.partial import merge, reference
from namm_llm.tokens import RaggedTokens
from tests.attention.triton.conftest import draw, matrix

kernels = pytest.importorskip("namm_llm.attention.triton.grouped")
ragged = pytest.importorskip("namm_llm.attention.triton.ragged")
HEADS = 3


def make(
    lengths, size: int, dtype: torch.dtype, device: torch.device, bits: int | None = None
) -> RaggedTokens:
    total = sum(lengths)
    keys, values = (draw(total, size, device=device, dtype=dtype, seed=seed) for seed in (1, 2))
    positions = torch.arange(total, dtype=torch.int32, device=device)
    tokens = RaggedTokens(
        keys, values, positions, torch.zeros(total, 0, device=device), tuple(lengths)
    )
    if bits is None:
        return tokens
    return RaggedTokens.gather(
        [segment.quantised() for segment in tokens.heads()], [None] * len(lengths)
    )


def definition(query, retained, keys, values, scale: float):
    """Head by head with `reference`, in float32."""
    groups, count, _ = keys.shape
    heads, new, size = query.shape
    grouped = query.float().reshape(groups, heads // groups, new, size)
    outs, norms = [], []
    visible = torch.ones(new, count, dtype=torch.bool, device=query.device).tril(count - new)
    for g, segment in enumerate(retained.floats().heads()):
        key, value = (t.float()[None, None] for t in (keys[g], values[g]))
        part = reference(
            grouped[g][:, None],
            *(t.expand(heads // groups, -1, -1, -1) for t in (key, value)),
            scale=scale,
            mask=visible,
        )
        if len(segment):
            key, value = (
                t.float()[None, None].expand(heads // groups, -1, -1, -1)
                for t in (segment.keys, segment.values)
            )
            part = merge(part, reference(grouped[g][:, None], key, value, scale=scale))
        outs.append(part[0][:, 0])
        norms.append(part[1][:, 0])
    return torch.cat(outs), torch.cat(norms)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 64 keys, so that short segments are split too."""
    monkeypatch.setattr(ragged, "_PART", 64)


def exact(retained: RaggedTokens) -> RaggedTokens:
    """Whose 8-bit tokens become float32: our kernel does not round them to half precision once
    more.
    """
    return (
        retained if retained.scales is None else replace(retained, scales=retained.scales.float())
    )


def check(query, retained, keys, values, attend=None, known=None):
    scale = query.shape[-1] ** -0.5
    found = (attend or kernels.grouped_attention)(query, retained, keys, values, scale=scale)
    expected = definition(query, known or retained, keys, values, scale)
    eps = torch.finfo(query.dtype).eps
    assert found[0].dtype == query.dtype
    torch.testing.assert_close(
        found[0].float(), expected[0], atol=max(1e-5, 4 * eps), rtol=max(1e-5, 2 * eps)
    )
    torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=1e-5)


@matrix
@pytest.mark.parametrize("bits", [None, 8])
def test_decoding(length, rows, size, dtype, device, small_parts, bits):
    retained = make([length, 0, length // 2 + 1], size, dtype, device, bits)
    keys, values = (
        draw(HEADS, length, size, device=device, dtype=dtype, seed=seed) for seed in (3, 4)
    )
    check(
        draw(HEADS * rows, 1, size, device=device, dtype=dtype),
        retained,
        keys,
        values,
        known=exact(retained),
    )


@matrix
@pytest.mark.parametrize("bits", [None, 8])
def test_chunk(length, rows, size, dtype, device, small_parts, bits):
    """The recent part holds older tokens too, which the whole chunk may see."""
    new = 9
    retained = make([5, length, 0], size, dtype, device, bits)
    keys, values = (
        draw(HEADS, new + length, size, device=device, dtype=dtype, seed=seed) for seed in (3, 4)
    )
    query = draw(HEADS * rows, new, size, device=device, dtype=dtype)
    segments = [
        (kernels.retained_tokens(retained), False),
        (kernels.window_tokens(keys, values), True),
    ]
    check(
        query,
        retained,
        keys,
        values,
        lambda *_, scale: ragged.attend(query.contiguous(), segments, scale=scale),
        exact(retained),
    )


@pytest.mark.parametrize("new", [1, 5])
def test_without_retained_tokens(new, device):
    keys, values = (draw(HEADS, 5, 64, device=device, seed=seed) for seed in (3, 4))
    check(
        draw(HEADS * 2, new, 64, device=device),
        make([0, 0, 0], 64, torch.float32, device),
        keys,
        values,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@matrix
def test_long_chunks_go_through_torch(length, rows, size, dtype):
    device = torch.device("cuda")
    keys, values = (draw(HEADS, 70, size, device=device, dtype=dtype, seed=seed) for seed in (3, 4))
    check(
        draw(HEADS * rows, 64, size, device=device, dtype=dtype),
        make([length, 0, 7], size, dtype, device),
        keys,
        values,
    )


def plain_varlen(query, key, value, ends_q, ends_k, max_q, max_k, *, return_aux, scale):
    """torch's `varlen_attn` as its documentation has it, for one head; FlashAttention gives +inf
    where there is no key.
    """
    outs, norms = [], []
    for g in range(len(ends_q) - 1):
        own = query[ends_q[g] : ends_q[g + 1], 0]
        keys, values = (t[ends_k[g] : ends_k[g + 1], 0] for t in (key, value))
        assert len(own) <= max_q
        assert len(keys) <= max_k
        if len(keys):
            out, lse = reference(*(t[None, None] for t in (own, keys, values)), scale=scale)
            outs.append(out[0, 0])
            norms.append(lse[0, 0])
        else:
            outs.append(torch.zeros_like(own))
            norms.append(torch.full((len(own),), torch.inf))
    return torch.cat(outs)[:, None], torch.cat(norms)[None]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the test above has torch's own")
@pytest.mark.parametrize("bits", [None, 8])
def test_long_chunks_are_packed_as_torch_wants_them(monkeypatch, bits):
    """On the CPU torch has no `varlen_attn`: its arguments and results are checked here."""
    monkeypatch.setattr(kernels, "varlen_attn", plain_varlen)
    keys, values = (
        draw(HEADS, 40, 64, device=torch.device("cpu"), dtype=torch.bfloat16, seed=seed)
        for seed in (3, 4)
    )
    query = draw(HEADS * 4, 32, 64, device=torch.device("cpu"), dtype=torch.bfloat16)
    check(query, make([33, 0, 7], 64, torch.bfloat16, torch.device("cpu"), bits), keys, values)


def test_torch_takes_the_arguments_of_long_chunks():
    """The call itself, without a GPU: torch's own fake of `varlen_attn` says which shapes come
    back.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        retained = RaggedTokens(
            torch.empty(20, 80), torch.empty(20, 80), torch.empty(20), torch.empty(20, 0), (13, 7)
        )
        out, lse = kernels.varlen(torch.empty(8, 64, 80), retained, scale=0.1)
    ragged.bounds.cache_clear()  # what was kept is fake
    assert out.shape == (8, 64, 80)
    assert lse.shape == (8, 64)
