"""A packed embedding table gives the rows of the expanded one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from namm_llm.models.gguf import BlockEmbedding, load_gguf
from tests.models.gguf.files import VOCABULARY, random_ids, tiny_model, write_model


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_table_equals_the_expanded_one(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    twin = tiny_model(architecture, VOCABULARY, tie_word_embeddings=True)
    path = write_model(tmp_path / "m.gguf", twin, architecture, "Q8_0")
    packed = load_gguf(
        path, dtype=dtype, make_embedding=lambda *table: BlockEmbedding(*table, dtype=dtype)
    )
    table = packed.model.get_input_embeddings()
    assert isinstance(table, BlockEmbedding)
    assert table.num_embeddings == VOCABULARY
    expanded, ids = load_gguf(path, dtype=dtype), random_ids(50, VOCABULARY)
    with torch.no_grad():
        assert torch.equal(table(ids), expanded.model.get_input_embeddings()(ids))
        assert torch.equal(packed.model(ids).logits, expanded.model(ids).logits)
