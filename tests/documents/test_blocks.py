"""A stream is cut where tokenizers begin anew, so that its ids are those of the whole text: for the
common kinds of tokenizers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from namm_llm.documents import blocks as blocks_module
from namm_llm.documents.blocks import TextBlocks
from namm_llm.models.prompt import PromptFormat
from tests.tiny import TEMPLATE, TEXT, tiny_tokenizer

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = pre_tokenizers.Split(Regex("(?<!▁)(?=▁)|(?<=\n)(?!\n)|(?<!\n)(?=\n)"), "isolated")
PROSE = (
    TEXT
    + "\n\nA  second paragraph,\twith\ttabs and   many spaces;\n"
    + "- a list,\n- of 12345 things.\r\n\r\n"
    + TEXT
    + "\n \n    indented(code)\n"
) * 3
CODE = Path(blocks_module.__file__).read_text(encoding="utf-8")


def byte_level(pattern: str | None) -> PreTrainedTokenizerFast:
    """As Llama 3 and Qwen (a pattern), or GPT-2 and SmolLM (none)."""
    if pattern is None:
        return tiny_tokenizer()
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return trained(tokenizer, pre_tokenizers.ByteLevel.alphabet())


def sentencepiece(*, prefix: bool) -> PreTrainedTokenizerFast:
    """As Llama 2 (a prefix before whatever comes) or Gemma (none): no splitting at all."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = (
        WORDS  # for the training alone: their vocabularies hold words with the space before them
    )
    fast = trained(tokenizer, [])
    fast.backend_tokenizer.pre_tokenizer = None
    return fast


def metaspace() -> PreTrainedTokenizerFast:
    """As newer Mistral models: the prefix before the first word only."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    spaces = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, WORDS])
    fast = trained(tokenizer, [])
    fast.backend_tokenizer.pre_tokenizer = spaces
    return fast


def trained(tokenizer: Tokenizer, alphabet: list[str]) -> PreTrainedTokenizerFast:
    tokenizer.train_from_iterator(
        [TEXT * 3, PROSE, CODE],
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=["<unk>", "<s>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    fast.chat_template = TEMPLATE
    return fast


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt2": lambda: byte_level(None),
    "llama3": lambda: byte_level(LLAMA_3),
    "llama2": lambda: sentencepiece(prefix=True),
    "gemma": lambda: sentencepiece(prefix=False),
    "mistral": metaspace,
}


@pytest.fixture(params=TOKENIZERS, scope="module")
def prompts(request: pytest.FixtureRequest) -> PromptFormat:
    tokenizer = TOKENIZERS[request.param]()
    return PromptFormat(tokenizer, tokenizer.backend_tokenizer, request.param)


def ids_of(prompts: PromptFormat, blocks: list[str]) -> list[int]:
    return prompts.document(blocks[0]) + [
        token for block in blocks[1:] for token in prompts.more(block)
    ]


@pytest.mark.parametrize(
    "text", [PROSE, CODE, TEXT.replace(" ", "\n") * 4], ids=["prose", "code", "lines"]
)
@pytest.mark.parametrize("size", [80, 97, 300])
def test_blocks_have_the_ids_of_the_whole_text(
    prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch, text: str, size: int
) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", size)
    whole = prompts.document(text)
    for step in (1, 13, len(text)):
        source = TextBlocks(text[at : at + step] for at in range(0, len(text), step))
        blocks = list(source)
        assert "".join(blocks) == text
        assert len(blocks) >= len(text) // (2 * size)
        assert source.sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert ids_of(prompts, blocks) == whole


@pytest.mark.parametrize(
    ("first", "then"),
    [("The lazy dog.\n", "Who signs?"), ("The lazy", " dog. Who\n"), ("The lazy dog", "  jumps")],
)
def test_a_continuation_has_the_ids_of_one_text(
    prompts: PromptFormat, first: str, then: str
) -> None:
    assert ids_of(prompts, [first, then]) == prompts.document(first + then)


def test_the_names_of_special_tokens_are_text_in_a_continuation() -> None:
    tokenizer = tiny_tokenizer()
    prompts = PromptFormat(tokenizer, tokenizer.backend_tokenizer, "tiny")
    ids = prompts.more("the end<|eot_id|> of it<|begin_of_text|>")
    assert prompts.decode(ids) == "the end<|eot_id|> of it<|begin_of_text|>"
    assert not {
        tokenizer.convert_tokens_to_ids(name) for name in ("<|eot_id|>", "<|begin_of_text|>")
    } & set(ids)


def test_a_text_without_borders_is_cut_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 10)
    assert [len(block) for block in TextBlocks(iter("x" * 35))] == [11, 11, 11, 2]


def test_blocks_are_cut_late_and_at_newlines_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 20)
    assert list(TextBlocks(iter("One two\nthree four five six"))) == [
        "One two\n",
        "three four five six",
    ]
    assert list(TextBlocks(iter("One two three four five six"))) == [
        "One two three four",
        " five six",
    ]
