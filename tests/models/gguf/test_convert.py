"""A converted file is a folder that transformers opens and that computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from namm_llm.errors import UsageError
from namm_llm.models.gguf import convert_gguf, load_gguf
from tests.models.gguf.files import ARCHITECTURES, VOCABULARY, random_ids, tiny_model, write_model
from tests.models.gguf.vocabularies import byte_level_twin, random_lines

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folder_computes_what_the_file_does(architecture: str, tmp_path: Path) -> None:
    twin = tiny_model(architecture, VOCABULARY)
    # transformers opens every qwen2 with the cut of qwen2, whatever its tokenizer.json says
    pre = "qwen2" if architecture.startswith("qwen") else "smollm"
    vocabulary = {**byte_level_twin(pre).metadata, "chat_template": TEMPLATE}
    path = write_model(tmp_path / "m.gguf", twin, architecture, "Q8_0", vocabulary)
    folder = convert_gguf(path, tmp_path / "folder")
    loaded, opened = load_gguf(path), AutoModelForCausalLM.from_pretrained(folder)
    ids = random_ids(60, VOCABULARY)
    with torch.no_grad():
        assert torch.equal(opened(ids).logits, loaded.model(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = random_lines(1000)
    assert tokenizer(lines)["input_ids"] == loaded.tokenizer(lines)["input_ids"]
    assert tokenizer.chat_template == TEMPLATE
    assert opened.generation_config.eos_token_id == list(loaded.end_ids)


@pytest.mark.parametrize(
    ("stored", "dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16), ("Q4_0", torch.float32)]
)
def test_plain_files_keep_their_dtype(stored: str, dtype: torch.dtype, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", tiny_model("llama", VOCABULARY), "llama", stored)
    folder = convert_gguf(path, tmp_path / "folder")
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype is dtype


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", tiny_model("llama", VOCABULARY), "llama")
    with pytest.raises(UsageError, match="not empty"):
        convert_gguf(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
