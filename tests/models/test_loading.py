"""What loads, what is shared, and what every failure says; nothing reaches for the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file

from namm_llm.errors import ModelError, NammError, UsageError
from namm_llm.models.checks import check_kernels
from namm_llm.models.loading import load_model
from namm_llm.models.locate import BUNDLED
from namm_llm.models.prompt import PromptFormat
from namm_llm.runner import Runner
from tests.tiny import save_tiny


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "broken"))


def failure(name: str | Path, **settings: Any) -> str:
    """The message; one line, and the error that the command line shows."""
    with pytest.raises(NammError) as error:
        load_model(name, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_same_settings_share_the_weights(tiny_folder: Path) -> None:
    first = load_model(tiny_folder)
    assert load_model(tiny_folder) is first
    assert load_model(tiny_folder, dtype="bfloat16") is not first
    assert first.model_id == str(tiny_folder)
    assert first.positions == 4096
    assert first.end_ids == {1, 2}
    assert first.load_seconds > 0
    assert not first.model.training


def test_newly_written_weights_are_loaded_again(folder: Path) -> None:
    first = load_model(folder)
    save_tiny(folder, seed=1)
    second = load_model(folder)
    assert second is not first
    assert second.fingerprint != first.fingerprint


def test_the_fingerprint_is_that_of_weights_and_tokenizer(tiny_folder: Path, folder: Path) -> None:
    first = load_model(tiny_folder)
    assert load_model(folder).fingerprint == first.fingerprint
    assert load_model(folder, quantization="nf4").fingerprint != first.fingerprint


def test_small_models_compute_in_float32_on_the_cpu(folder: Path) -> None:
    weights = {
        name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert load_model(folder, device="cpu").model.dtype == torch.float32
    assert load_model(folder, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
def test_quantised_models_have_real_layers_and_answer(tiny_folder: Path, quantization: Any) -> None:
    runner = Runner.load(tiny_folder, quantization=quantization, device="cpu")
    kind = bitsandbytes.nn.Linear4bit
    blocks = runner.loaded.model.model.layers  # type: ignore[union-attr]
    assert all(
        isinstance(block.mlp.up_proj, kind) and isinstance(block.self_attn.q_proj, kind)
        for block in blocks
    )  # type: ignore[union-attr]
    assert runner.loaded.footprint_bytes < load_model(tiny_folder).footprint_bytes
    answer = runner.generate("The quick brown fox", max_tokens=8)
    assert answer.usage.output_tokens == 8
    assert runner.generate("The quick brown fox", max_tokens=8).text == answer.text
    assert blocks[0].mlp.up_proj.weight.quant_type == quantization  # type: ignore[union-attr]


def test_a_layer_that_the_cpu_kernels_refuse_is_one_clear_line(tiny_folder: Path) -> None:
    model = load_model(tiny_folder, quantization="nf4", device="cpu").model
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    untouched = layer.weight.clone()
    check_kernels(model, "tiny")
    assert torch.equal(layer.weight, untouched)
    width, layer.in_features = layer.in_features, layer.in_features + 1  # type: ignore[assignment]
    with pytest.raises(ModelError) as error:
        check_kernels(model, "tiny")
    layer.in_features = width
    message = str(error.value)
    assert "cannot multiply by model.layers.0.mlp.up_proj of tiny on this CPU" in message
    assert f"x {width + 1}: " in message
    assert "\n" not in message


def test_a_file_is_not_a_model_folder(folder: Path) -> None:
    assert failure(folder / "config.json").endswith(
        "is no model; name a .gguf file, or the folder that holds config.json."
    )


@pytest.mark.parametrize(
    "name", ["./no/such/folder", "/no-such-folder", "a/b/c", "two words", "../x"]
)
def test_what_cannot_be_an_id_never_reaches_the_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("namm_llm.models.loading._load", lambda *_: pytest.fail("tried to load it"))
    expected = (
        f"there is no model folder {name}; name one, or a Hugging Face id such as "
        "meta-llama/Llama-3.2-1B-Instruct."
    )
    assert failure(name) == expected


@pytest.mark.parametrize("settings", [{}, {"local_files_only": True}])
def test_an_id_that_is_not_there_offline(settings: dict[str, bool]) -> None:
    assert failure("nobody/nothing", **settings) == (
        "nobody/nothing is no folder here and not among the downloaded models, and huggingface.co "
        "was not reached; "
        "name a model folder, or go online once so that it can be downloaded."
    )


def test_a_bundled_model_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(BUNDLED, "namm-tiny", tmp_path / "x")
    assert "the bundled model namm-tiny is missing from this installation" in failure("namm-tiny")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop_weight(path: Path) -> None:
    weights = load_file(path)
    weights.pop("model.norm.weight")
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: (f / "config.json").unlink(),
            "has no config.json, so it is not a model folder; name the folder that holds it.",
        ),
        (lambda f: cut(f / "config.json"), "config.json is damaged or cut short"),
        (
            lambda f: (f / "config.json").write_text("[]"),
            "config.json is damaged: it holds no JSON object.",
        ),
        (
            lambda f: (f / "config.json").write_text("{}"),
            "names no model_type; it does not describe a transformers model.",
        ),
        (
            lambda f: edit(f / "config.json", model_type="nonsense"),
            "cannot be loaded: ValueError: ",
        ),
        (
            lambda f: edit(f / "config.json", hidden_size=32),
            "have another shape than its config.json says, first ",
        ),
        (
            lambda f: (f / "model.safetensors").unlink(),
            "holds no weights (*.safetensors); copy or download the whole model.",
        ),
        (lambda f: cut(f / "model.safetensors"), "model.safetensors is damaged or cut short"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b""),
            "model.safetensors is damaged or cut short (0 bytes)",
        ),
        (
            lambda f: drop_weight(f / "model.safetensors"),
            "lack 1 tensor, first model.norm.weight; they do not belong to its config.json.",
        ),
        (
            lambda f: (f / "tokenizer.json").unlink(),
            "has no tokenizer (tokenizer.json); copy it from where the model comes from.",
        ),
        (lambda f: cut(f / "tokenizer.json"), "tokenizer.json is damaged or cut short"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be loaded: "),
        (
            lambda f: edit(f / "config.json", model_type="t5"),
            "is an encoder-decoder (t5); use a decoder model such as Llama.",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}'
            ),
            "lacks 2 of 2 weight files, first x-1.safetensors; copy or download them again.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "folder",
)
def test_a_broken_folder_is_explained(
    folder: Path, break_it: Callable[[Path], None], message: str
) -> None:
    break_it(folder)
    assert message in failure(folder)


def test_code_of_a_model_does_not_run_unasked(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    edit(
        folder / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    assert "is not run unless you pass trust_remote_code=True; read that code first." in failure(
        folder
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(tiny_folder: Path) -> None:
    assert failure(tiny_folder, device="cuda").startswith(
        "device cuda is not there: 0 CUDA devices are visible"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization": "q4"}, "quantization must be one of int4, int8, nf4, fp4, not 'q4'."),
        ({"dtype": "int3"}, "dtype must be auto, float32, bfloat16, float16, not 'int3'."),
        (
            {"device": "tpu"},
            "device must be one of auto, cpu, cuda, mps, balanced, balanced_low_0, sequential or a "
            "device map, not 'tpu'.",
        ),
    ],
)
def test_wrong_settings_are_named(
    tiny_folder: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError):
        load_model(tiny_folder, **settings)  # type: ignore[arg-type]
    assert failure(tiny_folder, **settings) == message


def test_a_model_whose_attention_cannot_be_managed(folder: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    for path in folder.glob("*.safetensors"):
        path.unlink()
    MambaForCausalLM(
        MambaConfig(vocab_size=300, hidden_size=16, state_size=4, num_hidden_layers=1)
    ).save_pretrained(folder)
    assert failure(folder).endswith("has a state in the place of a cache; use a Llama-like model.")


def test_the_tokenizer_of_a_loaded_model_neither_cuts_nor_pads(folder: Path) -> None:
    edit(
        folder / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
    )
    loaded = load_model(folder)
    assert (
        len(
            PromptFormat(loaded.tokenizer, loaded.backend, "tiny").encode(
                "The quick brown fox jumps over"
            )
        )
        > 3
    )
