"""The NAMM of a model: beside its weights, or shipped for its sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from namm_llm import Namm, NammError
from namm_llm.models.card import read_card
from namm_llm.models.own_namm import cache_config_of, own_namm

SMOLLM2 = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
}


def folder_of(path: Path, **changed: object) -> Path:
    """A folder that looks like a model to whoever reads no weights."""
    from safetensors.torch import save_file

    path.mkdir()
    (path / "config.json").write_text(json.dumps({**SMOLLM2, **changed}))
    (path / "tokenizer.json").write_text("{}")
    save_file({}, path / "model.safetensors")
    return path


def test_models_of_these_sizes_have_the_shipped_namm(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "fine-tuned")
    shipped = own_namm(folder)
    assert shipped is not None
    assert shipped.parent.name == "smollm2-135m"
    config = cache_config_of(folder, budget=0.25)
    assert config.policy.label == f"namm {Namm.load(shipped).fingerprint}"
    assert config.budget_scope == "model"


def test_the_namm_beside_the_weights_comes_first(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model")
    Namm.zeros().save(folder / "namm.safetensors")
    assert own_namm(folder) == folder / "namm.safetensors"


@pytest.mark.parametrize("changed", [{"num_hidden_layers": 29}, {"max_position_embeddings": 2048}])
def test_other_sizes_have_none(tmp_path: Path, changed: dict[str, object]) -> None:
    folder = folder_of(tmp_path / "other", **changed)
    assert own_namm(folder) is None
    assert read_card(folder).to_dict()["namm"] is None
    assert cache_config_of(folder, budget=0.25).policy.name == "replay"


def test_a_model_of_the_hub_has_none_and_what_is_no_model_is_refused() -> None:
    assert own_namm("somebody/a-model") is None
    with pytest.raises(NammError, match="no model folder"):
        own_namm("no such folder")
