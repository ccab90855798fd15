"""Real files: SmolLM2-135M-Instruct (llama, Q4_1) and Gemma 3 270M (gemma3, Q4_K_M)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from namm_llm.models.gguf import GgufFile, GgufModel, load_gguf, open_gguf
from namm_llm.models.gguf.header import read_header
from namm_llm.models.gguf.tokenizer import make_tokenizer
from namm_llm.models.gguf.vocabulary import read_vocabulary

pytestmark = pytest.mark.real
# ids of llama.cpp (llama-cpp-python 0.3.36), without a begin token: SmolLM2, Gemma 3
GOLDEN = {
    "\n\n1. a": ([1116, 33, 30, 253], [108, 236770, 236761, 496]),
    "  1": ([256, 33], [138, 236770]),
    "   12": ([333, 33, 34], [139, 236770, 236778]),
    "\n\n\n7": ([16506, 39], [109, 236832]),
    "\r\n\r\n1": ([18682, 33], [251, 107, 251, 107, 236770]),
    "\n \n1": ([198, 3717, 33], [107, 236743, 107, 236770]),
    "Hello  world": ([19556, 216, 905], [9259, 138, 12392]),
}
VOCABULARIES = "llama-bpe llama-spm phi-3 qwen2 qwen35 gpt-2 starcoder refact command-r mpt".split()


@pytest.fixture(scope="module")
def loaded_smollm2(smollm2: Path) -> GgufModel:
    return load_gguf(smollm2)


@pytest.fixture(scope="module")
def loaded_gemma3(gemma3: Path) -> GgufModel:
    return load_gguf(gemma3)


def test_metadata_is_read_in_two_seconds(smollm2: Path) -> None:
    start = time.process_time()
    assert len(open_gguf(smollm2).metadata.texts("tokenizer.ggml.tokens")) == 49152
    assert time.process_time() - start < 2


@pytest.mark.parametrize(("file", "column"), [("loaded_smollm2", 0), ("loaded_gemma3", 1)])
def test_tokens_equal_llama_cpp(file: str, column: int, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(file).tokenizer
    for text, ids in GOLDEN.items():
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[column]
        assert tokenizer.decode(ids[column]) == text


def test_smollm2_answers_in_its_chat_format_and_stops(loaded_smollm2: GgufModel) -> None:
    loaded = loaded_smollm2
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = loaded.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    answer = loaded.model.generate(**ids, max_new_tokens=30, do_sample=False)[
        0, ids["input_ids"].shape[1] :
    ]
    assert loaded.tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    assert loaded.end_ids == (2, 0)  # <|im_end|>, <|endoftext|>


def test_gemma_continues_and_knows_its_ends(loaded_gemma3: GgufModel) -> None:
    loaded = loaded_gemma3
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    assert ids[0, 0] == loaded.tokenizer.bos_token_id
    with torch.no_grad():
        best = loaded.model(ids).logits[0, -1].topk(5).indices
    assert " Paris" in [loaded.tokenizer.decode([number]) for number in best.tolist()]
    assert loaded.end_ids == (1, 106)  # <eos>, <end_of_turn>


def test_vocabularies_of_llama_cpp_give_the_ids_of_their_own_tokenizers(real_folder: Path) -> None:
    """The files ggml-vocab-*.gguf of llama.cpp's sources: texts with ids by other tokenizers."""
    files = sorted((real_folder / "vocab").glob("ggml-vocab-*.gguf"))
    checked = [
        path for path in files if path.name[len("ggml-vocab-") : -len(".gguf")] in VOCABULARIES
    ]
    if not checked:
        pytest.skip("the folder of real models has no vocab/ggml-vocab-*.gguf")
    for path in checked:
        header = read_header(path)
        vocabulary = read_vocabulary(GgufFile(path=path, headers=(header,)), 1 << 20)
        phi3 = header.metadata["general.architecture"] == "phi3"
        tokenizer = make_tokenizer(vocabulary, chat_template=None, strips_after=phi3)
        texts = path.with_name(path.name + ".inp").read_text(encoding="utf-8")
        ids = path.with_name(path.name + ".out").read_text(encoding="utf-8")
        for text, line in zip(
            texts.split("\n__ggml_vocab_test__\n"), ids.split("\n"), strict=False
        ):
            found = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert found == [int(number) for number in line.split()], (path.name, text)


@pytest.mark.parametrize("file", ["smollm2", "gemma3"])
def test_logits_equal_llama_cpp(file: str, request: pytest.FixtureRequest) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    loaded = request.getfixturevalue(f"loaded_{file}")
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    ids = loaded.tokenizer(text)["input_ids"][:2000]
    other = llama_cpp.Llama(
        str(loaded.path), n_ctx=2048, logits_all=True, n_threads=1, n_threads_batch=1, verbose=False
    )
    other.eval(ids)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids])).logits[0]
    for length in (900, 2000):
        ours, theirs = logits[length - 1], torch.from_numpy(other.scores[length - 1])
        assert ours.argmax() == theirs.argmax()
        assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] >= 0.999


def test_second_load_takes_less_than_five_seconds(smollm2: Path, tmp_path: Path) -> None:
    load_gguf(smollm2, tokenizer_cache=tmp_path)
    start = time.process_time()
    load_gguf(smollm2, tokenizer_cache=tmp_path)
    assert time.process_time() - start < 5
