"""The tokenizer of a GGUF file cuts text as the tokenizer that the file was written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from namm_llm.errors import ModelError
from namm_llm.models.gguf import load_gguf
from tests.models.gguf.files import tiny_model, write_model
from tests.models.gguf.vocabularies import Twin, byte_level_twin, random_lines, sentencepiece_twin

LINES = 10000


def tokenizer_of(twin: Twin, folder: Path, architecture: str = "llama", **changes: Any) -> Any:
    metadata = {**twin.metadata, **changes}
    model = tiny_model(architecture, len(metadata["tokens"]), num_hidden_layers=1)
    return load_gguf(
        write_model(folder / "m.gguf", model, architecture, vocabulary=metadata)
    ).tokenizer


def assert_equal_on_lines(twin: Twin, tokenizer: Any) -> None:
    lines = random_lines(LINES)
    wanted = [
        encoding.ids for encoding in twin.tokenizer.encode_batch(lines, add_special_tokens=False)
    ]
    found = tokenizer(lines, add_special_tokens=False)["input_ids"]
    different = [line for line, a, b in zip(lines, wanted, found, strict=True) if a != b]
    assert different == []


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_tokens_equal_the_twin(pre: str, tmp_path: Path) -> None:
    twin = byte_level_twin(pre)
    assert_equal_on_lines(twin, tokenizer_of(twin, tmp_path))


@pytest.mark.parametrize("add_space", [True, False])
def test_sentencepiece_tokens_equal_the_twin(add_space: bool, tmp_path: Path) -> None:
    twin = sentencepiece_twin(add_space=add_space, size=600)
    assert_equal_on_lines(twin, tokenizer_of(twin, tmp_path))


@pytest.mark.parametrize("make", [lambda: byte_level_twin("smollm"), sentencepiece_twin])
def test_text_comes_back_whole(make: Any, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(make(), tmp_path)
    # sentencepiece writes spaces as U+2581, and one behind every special token
    for line in [
        line for line in random_lines(300, seed=1) if "\u2581" not in line and "</s>" not in line
    ]:
        assert tokenizer.decode(tokenizer(line, add_special_tokens=False)["input_ids"]) == line


def test_digits_of_smollm_stand_alone(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(byte_level_twin("smollm"), tmp_path)
    for text in ("\n\n1. a", "  1", "   12", "\n\n\n7", "\r\n\r\n1", "\n \n1"):
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
        assert all(len(token) == 1 for token in tokens if any(c.isdigit() for c in token)), tokens


@pytest.mark.parametrize(
    ("pre", "stated", "adds"),
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("smollm", None, False),
        ("smollm", True, True),
    ],
)
def test_begin_token_as_stated_else_as_usual(
    pre: str, stated: bool | None, adds: bool, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(byte_level_twin(pre, add_bos=stated), tmp_path)
    assert (tokenizer("fox")["input_ids"][0] == 0) is adds


def test_every_end_token_ends(tmp_path: Path) -> None:
    twin = byte_level_twin("smollm")
    model = tiny_model("llama", len(twin.metadata["tokens"]), num_hidden_layers=1)
    loaded = load_gguf(write_model(tmp_path / "m.gguf", model, "llama", vocabulary=twin.metadata))
    named = {twin.metadata["tokens"][number] for number in loaded.end_ids}
    assert named == {"<|im_end|>", "<|end|>", "<|endoftext|>"}
    assert loaded.end_ids[0] == twin.metadata["eos_token_id"]
    assert loaded.model.generation_config.eos_token_id == list(loaded.end_ids)


def test_control_tokens_are_special_and_user_defined_are_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(byte_level_twin("smollm"), tmp_path)
    ids = tokenizer("<think>a<|im_end|>")["input_ids"]
    assert tokenizer.decode(ids) == "<think>a<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>a"


def test_phi3_tokens_swallow_the_space_behind_them(tmp_path: Path) -> None:
    twin = sentencepiece_twin()
    tokens = [*twin.metadata["tokens"], "<|user|>", "<|endoftext|>"]
    changes = {
        "tokens": tokens,
        "token_type": [*twin.metadata["token_type"], 3, 3],
        "scores": [*twin.metadata["scores"], 0.0, 0.0],
    }
    tokenizer = tokenizer_of(twin, tmp_path, "phi3", **changes)
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    assert tokenizer("<|user|>\na", add_special_tokens=False)["input_ids"] == [
        len(tokens) - 2,
        *plain,
    ]
    kept = tokenizer("<|endoftext|>\na", add_special_tokens=False)["input_ids"]
    assert len(kept) > 1 + len(plain)


def test_chat_template_is_that_of_the_file_and_sandboxed(tmp_path: Path) -> None:
    twin = byte_level_twin("smollm")
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    tokenizer = tokenizer_of(twin, tmp_path, chat_template=template)
    chat = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "[hello]"
    tokenizer.chat_template = "{{ ''.__class__.__mro__ }}"
    with pytest.raises(Exception, match="unsafe"):
        tokenizer.apply_chat_template(chat, tokenize=False)


def test_kept_tokenizer_equals_the_built_one(tmp_path: Path) -> None:
    twin = sentencepiece_twin()
    model = tiny_model("llama", len(twin.metadata["tokens"]), num_hidden_layers=1)
    path = write_model(tmp_path / "m.gguf", model, "llama", vocabulary=twin.metadata)
    kept = tmp_path / "kept"
    first, second = (load_gguf(path, tokenizer_cache=kept).tokenizer for _ in range(2))
    assert len(list(kept.iterdir())) == 1
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    next(kept.iterdir()).write_text("damaged")
    third = load_gguf(path, tokenizer_cache=kept).tokenizer
    assert third.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "klingon"}, "'klingon'"),
        ({"model": "rwkv"}, "'rwkv'"),
        ({"merges": ["no-pair"]}, "'no-pair' is no merge"),
        ({"merges": ["Q q"]}, "damaged vocabulary"),
        ({"eos_token_id": 99999}, "eos_token_id is 99999"),
    ],
)
def test_unknown_or_damaged_vocabularies_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer_of(byte_level_twin("smollm"), tmp_path, **changes)
