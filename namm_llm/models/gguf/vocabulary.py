"""The vocabulary of a GGUF file: its tokens, their kinds, and which of them are special."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from namm_llm.errors import ModelError
from namm_llm.models.gguf.config import token_id
from namm_llm.models.gguf.file import GgufFile

NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
BYTE: Final = 6

# texts that end an answer wherever they are one token
_END_TEXTS: Final = frozenset(
    "<|eot_id|> <|eom_id|> <|im_end|> <|end|> <|endoftext|> <|end_of_text|> <|eos|> <end_of_turn> "
    "<end_of_utterance> <｜end▁of▁sentence｜>".split()
)
# the same for texts that can also have been learnt from web pages: only if marked as special
_END_IF_SPECIAL: Final = frozenset("<EOT> _<EOT> [EOT] [EOS]".split())
_END_KINDS: Final = ("eos", "eot", "eom")


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """Tokens by id, with everything that the file says of them."""

    path: str
    """Of the file, for messages."""
    model: str
    """gpt2 for byte-level merges, llama for sentencepiece."""
    pre: str
    """How text is cut before it is merged; "default" where the file does not say."""
    tokens: list[str]
    """The text of each token, in the file's spelling."""
    kinds: np.ndarray[Any, np.dtype[Any]]
    """Of each token: normal, control, byte, ..."""
    scores: np.ndarray[Any, np.dtype[Any]]
    """Of each token; empty for byte-level merges."""
    merges: list[str]
    """Pairs, best first; empty if they follow from the scores."""
    special: dict[str, int]
    """Ids of bos, eos, unknown, padding, eot, eom, as far as the file names them."""
    add_bos: bool | None
    """Whether a text begins with bos; None if the file does not say."""
    add_eos: bool
    """Whether a text ends with eos."""
    add_space: bool
    """Whether sentencepiece puts a space before a text."""

    @cached_property
    def end_ids(self) -> list[int]:
        """Every token that ends an answer: eos first, then eot, eom and whatever is known to."""
        found = [self.special[kind] for kind in _END_KINDS if kind in self.special]
        for number, token in enumerate(self.tokens):
            marked = self.kinds[number] in (CONTROL, USER_DEFINED)
            if token in _END_TEXTS or (marked and token in _END_IF_SPECIAL):
                found.append(number)
        return list(dict.fromkeys(found))

    def text_of(self, kind: str) -> str | None:
        """The text of a special token; None if the file names none."""
        number = self.special.get(kind)
        return None if number is None else self.tokens[number]


def read_vocabulary(file: GgufFile, rows: int) -> Vocabulary:
    """The checked vocabulary of a file whose embedding has `rows` rows.

    Raises:
        ModelError: it is missing or damaged.
    """
    metadata = file.metadata
    tokens = metadata.texts("tokenizer.ggml.tokens")
    if not tokens:
        raise ModelError(
            f"{file.path} holds no tokenizer (tokenizer.ggml.tokens), so it reads no text."
        )
    if len(tokens) > rows:
        raise ModelError(f"{file.path} is damaged: {len(tokens)} tokens for {rows} embeddings.")
    kinds = metadata.numbers("tokenizer.ggml.token_type")
    scores = metadata.numbers("tokenizer.ggml.scores")
    for name, found in (("token_type", kinds), ("scores", scores)):
        if found.size not in (0, len(tokens)):
            raise ModelError(
                f"{file.path} is damaged: tokenizer.ggml.{name} has {found.size} numbers for "
                f"{len(tokens)} tokens."
            )
    has_bos = "tokenizer.ggml.add_bos_token" in metadata
    return Vocabulary(
        path=str(file.path),
        model=metadata.text("tokenizer.ggml.model"),
        pre=metadata.text("tokenizer.ggml.pre", "default"),
        tokens=tokens,
        kinds=kinds if kinds.size else np.full(len(tokens), NORMAL),
        scores=scores,
        merges=metadata.texts("tokenizer.ggml.merges"),
        special=_special_ids(file, len(tokens)),
        add_bos=metadata.flag("tokenizer.ggml.add_bos_token", False) if has_bos else None,
        add_eos=metadata.flag("tokenizer.ggml.add_eos_token", False),
        add_space=metadata.flag("tokenizer.ggml.add_space_prefix", True),
    )


def _special_ids(file: GgufFile, count: int) -> dict[str, int]:
    """Of the special tokens that the file names."""
    kinds = ("bos", "eos", "unknown", "padding", *_END_KINDS[1:])
    found = {kind: token_id(file, kind, count) for kind in kinds}
    return {kind: number for kind, number in found.items() if number is not None}
