"""Small trained tokenizers, each with its twin: what a GGUF file says of it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers.tokenization_utils_base import generate_merges

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPECIAL = ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
TEXT = [
    "The quick brown fox jumps over 12 lazy dogs; they'll say it's 3.14, we've 48213 more.\n",
    "1. First item\n2. Second item\n\n  10. Tenth\n\tdef f(x): return x + 1  # 100%\n",
    "Ein schöner Tag, ein Café, 漢字 und 🙂. Привет мир 1999-2024!\r\n\r\nI'M HERE. HTTP2Go?!\n",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass
class Twin:
    """A tokenizer and its description in a GGUF file."""

    tokenizer: Tokenizer
    metadata: dict[str, Any] = field(default_factory=dict)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def cut_of(pre: str) -> pre_tokenizers.PreTokenizer:
    """As the tokenizer.json of the models that carry the name has it."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cuts = {
        "gpt-2": byte_level,
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level]
        ),
        "llama-bpe": _split(LLAMA3),
        "qwen2": _split(QWEN2),
    }
    return cuts[pre]


def byte_level_twin(pre: str, *, size: int = 420, add_bos: bool | None = None) -> Twin:
    """A byte-level vocabulary that is cut as `pre` says."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = cut_of(pre)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    tokens = [str(tokenizer.id_to_token(number)) for number in range(tokenizer.get_vocab_size())]
    kinds = [CONTROL if token in SPECIAL else NORMAL for token in tokens]
    kinds[tokens.index("<think>")] = USER_DEFINED
    merges = [" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    metadata: dict[str, Any] = {"model": "gpt2", "pre": pre, "merges": merges}
    metadata |= {"tokens": tokens, "token_type": kinds, "bos_token_id": 0, "eos_token_id": 3}
    if add_bos is not None:
        metadata["add_bos_token"] = add_bos
    return Twin(tokenizer, metadata)


def sentencepiece_twin(*, add_space: bool = True, size: int = 300) -> Twin:
    """A vocabulary with scores and no merges; the tokenizer's merges come from transformers."""
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    fixed = len(pieces)
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(TEXT * 3, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    learnt = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    pieces += [text for text, _ in learnt]
    scores = [0.0] * fixed + [-float(rank) for rank in range(len(learnt))]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(learnt)]
    vocabulary = {text: number for number, text in enumerate(pieces)}
    merges = generate_merges(
        {text: vocabulary[text] for text, _ in learnt},
        dict(zip(pieces[fixed:], scores[fixed:], strict=True)),
    )
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Prepend("▁")] if add_space else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    )
    metadata = {"model": "llama", "pre": "default", "tokens": pieces, "token_type": kinds}
    metadata |= {"scores": scores, "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return Twin(tokenizer, {**metadata, "add_bos_token": False, "add_space_prefix": add_space})


_SPACES = ("  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u2003")
_OTHERS = (
    "'s 'LL don't 12 1999 48213 3.14 1,000 ½ Ⅷ ٣٤ ² e\u0301 é 한국어 中文 🙂 👩\u200d👧 <|im_end|> "
    "<think> </s> ▁ -- ?! $%& a_b CamelCase ǅ"
).split()


def random_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of words, numbers, symbols, letters of many scripts and odd spaces."""
    draw = random.Random(seed)
    words = [word for text in TEXT for word in text.split(" ")]
    lines = []
    for _ in range(count):
        parts = draw.choices([*words, *_SPACES, *_OTHERS], k=draw.randint(1, 12))
        end = draw.choice(["", " ", "\n", chr(draw.randint(33, 0x2FFF))])
        lines.append(draw.choice(["", " "]).join(parts) + end)
    return lines
