"""How byte-level vocabularies cut text before they merge: `tokenizer.ggml.pre` of a GGUF file.

The file names the cut and does not hold it. The table follows the tokenizer.json of the models that
carry each name, as far as llama.cpp's table of the same names tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tokenizers import Regex, normalizers, pre_tokenizers

from namm_llm.errors import ModelError

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SYMBOLS_AND_SPACE: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3: Final = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_SYMBOLS_AND_SPACE}"
)
_QWEN2: Final = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_SYMBOLS_AND_SPACE}"
_QWEN35: Final = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_CASED_TAIL: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN: Final = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_CASED_TAIL}"
_GPT4O: Final = (
    rf"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_CASED_TAIL}"
)
_SEED_CODER: Final = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_FINNISH: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"
_DEEPSEEK_CODER: Final = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
# what llama.cpp does for files of before 2024-05, which name no cut
_DEFAULT: Final = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """One way to cut, with what goes with it in the models that use it."""

    patterns: tuple[str, ...]
    """Regular expressions, applied one after the other: each match and each rest is a piece."""
    add_bos: bool = False
    """Whether a text begins with the begin token where the file does not say."""
    ignore_merges: bool = False
    """Whether a piece that is a token is taken whole, even where no merges lead to it."""
    nfc: bool = False
    """Whether text is composed (Unicode NFC) first."""

    def make(self) -> pre_tokenizers.PreTokenizer:
        """As the `tokenizers` library has it; bytes become letters in the last step."""
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=False)])

    def make_normalizer(self) -> normalizers.Normalizer | None:
        """What is done to the text before it is cut."""
        return normalizers.NFC() if self.nfc else None


_DIGITS_GPT2: Final = PreTokenizer(patterns=(r"\p{N}", _GPT2))
_PLAIN_GPT2: Final = PreTokenizer(patterns=(_GPT2,))
_LLAMA3_WHOLE: Final = PreTokenizer(patterns=(_LLAMA3,), add_bos=True, ignore_merges=True)
_QWEN: Final = PreTokenizer(patterns=(_QWEN2,))
_GPT4O_CUT: Final = PreTokenizer(patterns=(_GPT4O,))
_GROUPS: Final = (
    ("default", PreTokenizer(patterns=_DEFAULT)),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", _LLAMA3_WHOLE),
    ("dbrx smaug-bpe", PreTokenizer(patterns=(_LLAMA3,))),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", _DIGITS_GPT2),
    (
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat exaone4 mellum a.x-4.0",
        _PLAIN_GPT2,
    ),
    ("qwen2", PreTokenizer(patterns=(_QWEN2,), nfc=True)),
    ("qwen35", PreTokenizer(patterns=(_QWEN35,))),
    ("stablelm2 deepseek-r1-qwen megrez kormo", _QWEN),
    ("tekken", PreTokenizer(patterns=(_TEKKEN,), add_bos=True, ignore_merges=True)),
    ("gpt-4o llama4 kanana2", _GPT4O_CUT),
    ("seed-coder", PreTokenizer(patterns=(_SEED_CODER,))),
    ("poro-chat bloom gpt3-finnish", PreTokenizer(patterns=(_FINNISH,))),
    ("viking", PreTokenizer(patterns=(_FINNISH, r"\p{N}"))),
    ("deepseek-coder", PreTokenizer(patterns=_DEEPSEEK_CODER)),
)
PRE_TOKENIZERS: Final = {name: cut for names, cut in _GROUPS for name in names.split()}
"""By `tokenizer.ggml.pre`."""


def find_pre_tokenizer(name: str, path: object) -> PreTokenizer:
    """The cut of that name.

    Raises:
        ModelError: it is not known; any other cut would give other tokens.
    """
    if name not in PRE_TOKENIZERS:
        raise ModelError(
            f"{path} cuts text as {name[:40]!r} (tokenizer.ggml.pre), which is not known here; "
            f"known are {', '.join(sorted(PRE_TOKENIZERS))}."
        )
    return PRE_TOKENIZERS[name]
