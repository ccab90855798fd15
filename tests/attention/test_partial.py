"""Attention over parts against one softmax over everything."""

from __future__ import annotations

import pytest
import torch

from namm_llm.attention import partial
from namm_llm.attention.grouped import grouped_attention
from namm_llm.attention.partial import merge, partial_attention, reference
from namm_llm.tokens import HeadTokens, RaggedTokens


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attend", [partial_attention, reference])
@pytest.mark.parametrize("length", [1, 63, 111, 1000])
def test_parts_merge_to_the_whole(attend, length):
    query, keys, values = (
        draw(2, 3, 7, 20),
        draw(2, 3, length + 30, 20, seed=1),
        draw(2, 3, length + 30, 20, seed=2),
    )
    logits = query @ keys.mT * 0.2
    halves = [
        attend(query, k, v, scale=0.2)
        for k, v in zip(keys.split([length, 30], 2), values.split([length, 30], 2), strict=True)
    ]
    out, lse = merge(*halves)
    torch.testing.assert_close(out, logits.softmax(-1) @ values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, logits.logsumexp(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_fused_equals_the_definition_and_so_does_the_definition_in_pieces(causal, monkeypatch):
    query, keys, values = draw(3, 2, 33, 8), draw(3, 2, 33, 8, seed=1), draw(3, 2, 33, 8, seed=2)
    mask = (
        None
        if causal
        else torch.rand(33, 33, generator=torch.Generator().manual_seed(3))
        .lt(0.5)
        .fill_diagonal_(True)
    )
    whole = reference(query, keys, values, scale=0.3, causal=causal, mask=mask)
    fused = partial_attention(query, keys, values, scale=0.3, causal=causal, mask=mask)
    monkeypatch.setattr(partial, "_MOST_LOGITS", 1)
    pieces = reference(query, keys, values, scale=0.3, causal=causal, mask=mask)
    for other in (fused, pieces):
        torch.testing.assert_close(other[0], whole[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other[1], whole[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("new", [1, 5, 40])
@pytest.mark.parametrize("lengths", [(0, 0), (13, 13), (0, 17), (111, 1)])
def test_ragged_heads(new, lengths):
    columns = [
        HeadTokens(
            draw(n, 8, seed=n), draw(n, 8, seed=n + 1), torch.arange(n).int(), torch.zeros(n, 0)
        )
        for n in lengths
    ]
    retained = RaggedTokens.gather(columns, [None, None])
    query, keys, values = draw(6, new, 8), draw(2, 40, 8, seed=1), draw(2, 40, 8, seed=2)
    out, lse = grouped_attention(query, retained, keys, values, scale=0.35)
    visible = torch.ones(new, 40, dtype=torch.bool).tril(40 - new)
    for head in range(6):
        own = columns[head // 3]
        every = torch.cat([own.keys, keys[head // 3]])
        logits = query[head] @ every.T * 0.35
        logits = logits.masked_fill(
            ~torch.nn.functional.pad(visible, (len(own), 0), value=True), -torch.inf
        )
        torch.testing.assert_close(
            out[head],
            logits.softmax(-1) @ torch.cat([own.values, values[head // 3]]),
            atol=1e-5,
            rtol=1e-5,
        )
        torch.testing.assert_close(lse[head], logits.logsumexp(-1), atol=1e-5, rtol=1e-5)
