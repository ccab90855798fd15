"""What a path can name, what a header says, and what is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from namm_llm.errors import ModelError
from namm_llm.models.gguf import is_gguf, load_gguf, open_gguf
from tests.models.gguf.files import (
    VOCABULARY,
    FileWriter,
    gguf,
    random_ids,
    tiny_model,
    write_model,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file; do not write to it."""
    folder = tmp_path_factory.mktemp("one")
    return write_model(folder / "tiny.gguf", tiny_model("llama", VOCABULARY), "llama", "Q8_0")


def split(path: Path, folder: Path) -> list[Path]:
    """The same model in parts of ten tensors."""
    twin = tiny_model("llama", VOCABULARY)
    file = FileWriter(folder / "tiny.gguf", twin, "llama")
    file.writer.split_max_tensors = 10
    file.add_weights(twin, "Q8_0")
    file.write()
    return sorted(folder.glob("*.gguf"))


def test_metadata_and_bytes_equal_those_of_the_reference_reader(path: Path) -> None:
    file, reference = open_gguf(path), gguf.GGUFReader(path)
    fields = {key: field for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert set(file.metadata) == set(fields)
    for key in (
        "general.architecture",
        "llama.block_count",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ):
        assert file.metadata[key] == fields[key].contents()
    for tensor in reference.tensors:
        info = file.tensors[tensor.name]
        assert info.shape == tuple(reversed(tensor.shape.tolist()))
        assert (info.type_name, info.offset) == (tensor.tensor_type.name, tensor.data_offset)
        assert bytes(file.raw(tensor.name).flatten().numpy()) == tensor.data.tobytes()


def test_a_folder_with_one_model_is_that_model(path: Path) -> None:
    assert is_gguf(path)
    assert is_gguf(path.parent)
    assert open_gguf(path.parent).path == path


def test_a_folder_of_transformers_is_none_of_ours(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert not is_gguf(tmp_path)


def test_parts_are_one_model_by_any_of_them(path: Path, tmp_path: Path) -> None:
    parts = split(path, tmp_path)
    assert len(parts) > 1
    whole, ids = load_gguf(path), random_ids(20, VOCABULARY)
    for name in (parts[0], parts[-1], tmp_path):
        loaded = load_gguf(name)
        with torch.no_grad():
            assert torch.equal(loaded.model(ids).logits, whole.model(ids).logits)


def test_a_missing_part_is_named(path: Path, tmp_path: Path) -> None:
    parts = split(path, tmp_path)
    parts[1].unlink()
    with pytest.raises(ModelError, match=parts[1].name):
        open_gguf(parts[0])


def test_a_part_that_was_renamed_is_refused(path: Path, tmp_path: Path) -> None:
    first = split(path, tmp_path)[0].rename(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"one of \d+ parts"):
        open_gguf(first)


def test_several_models_in_a_folder_are_named(path: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(path, tmp_path / name)
    with pytest.raises(ModelError, match=r"2 GGUF models \(a\.gguf, b\.gguf\)"):
        open_gguf(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(40), "version 1"),
        (b"GGUF" + (3).to_bytes(4, "big") + bytes(40), "big-endian"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(16), "no weights"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16, "number of tensors is"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        open_gguf(tmp_path / "x.gguf")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*none\.gguf"):
        open_gguf(tmp_path / "none.gguf")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.arch = "mamba"
    file.writer.kv_data[0]["general.architecture"].value = "mamba"
    file.add_weights(twin)
    with pytest.raises(ModelError, match=r"'mamba'.*llama, mistral, qwen2, qwen3, gemma3, phi3"):
        load_gguf(file.write())


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY)
    file = FileWriter(tmp_path / "m.gguf", twin, "llama")
    file.writer.add_expert_count(8)
    file.add_weights(twin)
    with pytest.raises(ModelError, match="mixture of experts"):
        load_gguf(file.write())


def test_a_missing_and_a_foreign_tensor_are_named(tmp_path: Path) -> None:
    twin = tiny_model("llama", VOCABULARY)
    lacking = FileWriter(tmp_path / "a.gguf", twin, "llama")
    lacking.skip.add("blk.1.ffn_up.weight")
    lacking.add_weights(twin)
    with pytest.raises(ModelError, match=r"lacks 1 of .*layers\.1\.mlp\.up_proj\.weight"):
        load_gguf(lacking.write())
    foreign = FileWriter(tmp_path / "b.gguf", twin, "llama")
    foreign.writer.add_tensor("blk.0.attn_sinks.weight", torch.ones(4).numpy())
    foreign.add_weights(twin)
    with pytest.raises(ModelError, match=r"blk\.0\.attn_sinks\.weight"):
        load_gguf(foreign.write())


def test_the_fingerprint_follows_metadata_and_weights(path: Path, tmp_path: Path) -> None:
    copy = shutil.copy(path, tmp_path / "copy.gguf")
    assert open_gguf(copy).fingerprint == open_gguf(path).fingerprint
    content = bytearray(path.read_bytes())
    name, weight = (
        content.index(b"llama.block_count"),
        open_gguf(path).tensors["output_norm.weight"].offset,
    )
    for at in (name, weight):
        changed = bytearray(content)
        changed[at] ^= 1
        (tmp_path / "changed.gguf").write_bytes(changed)
        assert open_gguf(tmp_path / "changed.gguf").fingerprint != open_gguf(path).fingerprint
