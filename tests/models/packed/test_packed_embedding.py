"""Embeddings whose table stays packed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from namm_llm.models.packed import Backend, Packer, from_embedding
from namm_llm.models.packed.formats import FORMATS
from tests.models.packed.conftest import distance

Blocks = Callable[[str, int, int], tuple[Tensor, Tensor]]


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_those_of_the_table(each_backend: Backend, blocks: Blocks, name: str) -> None:
    raw, weights = blocks(name, 100, 512)
    embedding = Packer().embedding(raw, name, (100, 512))
    assert embedding is not None
    ids = torch.tensor([[0, 99, 17], [17, 64, 1]])
    found = embedding(ids)
    if each_backend is Backend.COMPILED:
        assert torch.equal(found, weights[ids])
    assert distance(found, weights[ids]) < 0.01
    assert embedding(ids[:, :0]).shape == (2, 0, 512)
    assert torch.equal(embedding(ids.int()), found)


def test_rows_are_scaled_in_their_dtype(each_backend: Backend, blocks: Blocks) -> None:
    raw, weights = blocks("Q8_0", 100, 64)
    embedding = Packer(torch.bfloat16).embedding(raw, "Q8_0", (100, 64), scale=25.3)
    assert embedding is not None
    found = embedding(torch.arange(100))
    assert found.dtype is torch.bfloat16
    assert distance(found, 25.3 * weights) < 0.01


@pytest.mark.parametrize("token", [-1, 100])
def test_tokens_out_of_range_are_refused(each_backend: Backend, blocks: Blocks, token: int) -> None:
    embedding = Packer().embedding(blocks("Q4_0", 100, 64)[0], "Q4_0", (100, 64))
    assert embedding is not None
    with pytest.raises(IndexError, match="100"):
        embedding(torch.tensor([3, token]))


def test_copies_share_one_table_with_their_head(each_backend: Backend, blocks: Blocks) -> None:
    raw, _ = blocks("Q6_K", 100, 512)
    embedding = Packer().embedding(raw, "Q6_K", (100, 512))
    assert embedding is not None
    pair = nn.ModuleList([embedding, embedding.head()])
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert other[0].weights is other[1].weights[0]
        assert torch.equal(other[0](torch.arange(9)), embedding(torch.arange(9)))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_float_table_is_quantised(each_backend: Backend, bits: int) -> None:
    table = nn.Embedding(70, 64)
    embedding = from_embedding(table, bits)  # type: ignore[arg-type]
    assert embedding is not None
    ids = torch.arange(70)
    assert distance(embedding(ids), table(ids).detach()) < (0.09 if bits == 4 else 0.01)
    assert from_embedding(nn.Embedding(70, 48), 4) is None
