"""Adapters: what peft writes is merged into weights of every kind, and named in fingerprints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from namm_llm import DocumentError, ModelError, Runner, UsageError
from namm_llm.documents import read_header
from namm_llm.models.adapter import read_adapter
from namm_llm.models.packed import Backend, backend
from tests.models.gguf.files import VOCABULARY, tiny_model, write_model

# peft asks transformers for a name of old
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

IDS = torch.arange(3, 60)[None]
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def plain(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def make_adapter(base: Path, folder: Path, *, seed: int = 0, **settings: object) -> Path:
    """A random adapter, large enough that answers change."""
    given = {"r": 4, "lora_alpha": 6, "target_modules": list(EVERY), **settings}
    model = get_peft_model(plain(base), LoraConfig(task_type="CAUSAL_LM", **given))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_folder, tmp_path_factory.mktemp("adapter") / "a")


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(adapter, tmp_path / "copy"))


def logits(runner: Runner) -> torch.Tensor:
    return runner.loaded.model(IDS).logits.float()


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"target_modules": ["q_proj"]}])
def test_logits_are_those_of_peft(tiny_folder: Path, tmp_path: Path, settings: dict) -> None:
    folder = make_adapter(tiny_folder, tmp_path / "a", **settings)
    merged = PeftModel.from_pretrained(plain(tiny_folder), folder).merge_and_unload()
    found = logits(Runner.load(tiny_folder, adapter=folder))
    torch.testing.assert_close(found, merged(IDS).logits)
    assert (found - logits(Runner.load(tiny_folder))).abs().max() > 0.1


@pytest.mark.skipif(backend() is Backend.OFF, reason="no packed kernels here")
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_weights_are_packed_after_they_were_changed(
    tiny_folder: Path, adapter: Path, tmp_path: Path, quantization: str
) -> None:
    merged = PeftModel.from_pretrained(plain(tiny_folder), adapter).merge_and_unload()
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "merged"))
    merged.save_pretrained(folder)
    wanted = logits(Runner.load(folder, quantization=quantization, device="cpu"))
    found = logits(
        Runner.load(tiny_folder, adapter=adapter, quantization=quantization, device="cpu")
    )
    torch.testing.assert_close(found, wanted)


def test_a_gguf_file_with_an_adapter_is_close_to_its_expanded_model(tmp_path: Path) -> None:
    model = tiny_model("llama", VOCABULARY)
    model.save_pretrained(tmp_path / "base")
    adapter = make_adapter(tmp_path / "base", tmp_path / "adapter")
    file = write_model(tmp_path / "tiny.gguf", model, "llama", "Q8_0")
    merged = PeftModel.from_pretrained(plain(tmp_path / "base"), adapter).merge_and_unload()
    wanted, before = merged(IDS).logits, plain(tmp_path / "base")(IDS).logits
    base, changed = (
        logits(Runner.load(file, adapter=each, dtype="float32", device="cpu"))
        for each in (None, adapter)
    )
    assert (base - wanted).norm() > 5 * (changed - wanted).norm()
    # rounding costs what it costs without an adapter
    assert (changed - wanted).norm() < 1.5 * (base - before).norm() + 0.01


def test_memories_belong_to_the_model_with_its_adapter(
    tiny_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    other = make_adapter(tiny_folder, tmp_path / "other", seed=1)
    none = make_adapter(tiny_folder, tmp_path / "none")
    runners = [Runner.load(tiny_folder, adapter=each) for each in (None, adapter, other, none)]
    assert len({runner.memory_fingerprint("A text.") for runner in runners}) == 3
    assert len({runner.fingerprint for runner in runners}) == 3  # the same numbers elsewhere
    file = tmp_path / "memory.namm"
    runners[1].read("A text.").save(file)
    assert runners[1].open(file).fingerprint == runners[1].memory_fingerprint("A text.")
    with pytest.raises(DocumentError, match=f"saved with the weights of .*adapter {adapter}"):
        runners[0].open(file)
    assert read_header(file).model.adapter == str(adapter)


@pytest.mark.skipif(backend() is Backend.OFF, reason="no packed kernels here")
def test_fingerprints_of_packed_weights_differ_too(tiny_folder: Path, adapter: Path) -> None:
    kinds = [
        Runner.load(tiny_folder, adapter=each, quantization="int8", device="cpu").fingerprint
        for each in (None, adapter)
    ]
    assert kinds[0] != kinds[1]


# -- what can be wrong -----------------------------------------------------------------------------


def edit(folder: Path, **changes: object) -> Path:
    """Other settings in the adapter's config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_folder_or_half_an_adapter(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no adapter: it has no adapter_config\.json"):
        read_adapter(tmp_path / "nowhere")
    weights = copy / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged or cut short"):
        read_adapter(copy)
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        read_adapter(copy)
    (copy / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_adapter(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "describes LOHA; only peft's LORA"),
        ({"use_dora": True}, "has use_dora True, which is not known here"),
        ({"rank_pattern": {"q_proj": 2}}, "has rank_pattern"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights 'pissa'"),
        ({"r": None}, "names no rank"),
        ({"r": 8}, r"has the shapes \[4, 128\] and \[64, 4\]; the rank is 8"),
    ],
)
def test_other_kinds_of_adapters(copy: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        read_adapter(edit(copy, **changes))
    one_line(error)


def test_tensors_that_are_no_lora(copy: Path) -> None:
    path = copy / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.lm_head.weight": torch.ones(2, 2)}, path)
    with pytest.raises(ModelError, match=r"holds base_model.model.lm_head.weight, which is not"):
        read_adapter(copy)
    save_file({}, path)
    with pytest.raises(ModelError, match="holds no tensors"):
        read_adapter(copy)


def test_an_adapter_of_another_model(tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"of shape \[64, 128\], which is .* in namm-tiny"
    ) as error:
        Runner.load("namm-tiny", adapter=adapter)
    one_line(error)
    other = AutoModelForCausalLM.from_pretrained(tiny_folder)
    other.model.layers = other.model.layers[:1]
    other.config.num_hidden_layers = 1
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "shallow"))
    other.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"changes model.layers.1.* has no such linear map"):
        Runner.load(folder, adapter=adapter)


def test_a_head_that_shares_the_embedding(copy: Path, tmp_path: Path) -> None:
    model = tiny_model("llama", VOCABULARY, tie_word_embeddings=True)
    file = write_model(tmp_path / "tiny.gguf", model, "llama", "Q8_0")
    name = "base_model.model.lm_head.lora_"
    parts = {f"{name}A.weight": torch.ones(4, 64), f"{name}B.weight": torch.ones(VOCABULARY, 4)}
    save_file(parts, copy / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="shares its weights with the embedding"):
        Runner.load(file, adapter=copy, device="cpu")


def test_weights_that_are_quantised_while_they_load(tiny_folder: Path, adapter: Path) -> None:
    with pytest.raises(UsageError, match="cannot be added to weights that nf4 quantises"):
        Runner.load(tiny_folder, adapter=adapter, quantization="nf4", device="cpu")
