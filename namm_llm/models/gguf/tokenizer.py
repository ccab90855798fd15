"""The tokenizer of a GGUF file, built from its vocabulary alone.

Two kinds: byte-level merges (`gpt2`: Llama 3, Qwen, SmolLM2, Phi 4) and sentencepiece (`llama`:
Llama 2, Mistral, Gemma, Phi 3). transformers' own converter loses the digit step of SmolLM2, the
whole pieces of Llama 3 and the composed letters of Qwen.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from namm_llm.errors import ModelError
from namm_llm.models.gguf.pre_tokenizers import find_pre_tokenizer
from namm_llm.models.gguf.tokenizer_cache import cache_key, read_entry, write_entry
from namm_llm.models.gguf.vocabulary import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

_SPACE: Final = "\u2581"  # how sentencepiece writes a space
_PHI3_UNSTRIPPED: Final = ("<unk>", "<s>", "<|endoftext|>")


def make_tokenizer(
    vocabulary: Vocabulary,
    *,
    chat_template: str | dict[str, str] | None,
    strips_after: bool = False,
    cache: Path | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer of transformers.

    Args:
        vocabulary: of the file.
        chat_template: of the file; several if they have names.
        strips_after: whether special tokens swallow the white space behind them, as in Phi 3.
        cache: folder in which built tokenizers are kept; None builds each time.

    Raises:
        ModelError: a kind of tokenizer or a cut that is not known, or a damaged vocabulary.
    """
    key = cache_key(vocabulary, strips_after)
    kept = None if cache is None else read_entry(cache, key)
    if kept is not None:
        with suppress(Exception):  # damaged on the disk: the library raises bare exceptions
            return _wrap(vocabulary, chat_template, tokenizer_file=str(kept))
    backend = _build(vocabulary, strips_after)
    if cache is not None:
        write_entry(cache, key, backend)
    return _wrap(vocabulary, chat_template, tokenizer_object=backend)


def _build(vocabulary: Vocabulary, strips_after: bool) -> Tokenizer:
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    build = builders.get(vocabulary.model)
    if build is None:
        raise ModelError(
            f"{vocabulary.path} has a tokenizer of the kind {vocabulary.model[:40]!r}; known are "
            f"{', '.join(builders)}."
        )
    try:
        backend = build(vocabulary)
        _add_tokens(backend, vocabulary, strips_after)
        _add_ends(backend, vocabulary)
    except ModelError:
        raise
    except Exception as error:  # the library raises bare exceptions
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{vocabulary.path} has a damaged vocabulary: {reason}") from error
    return backend


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    cut = find_pre_tokenizer(vocabulary.pre, vocabulary.path)
    if not vocabulary.merges:
        raise ModelError(
            f"{vocabulary.path} holds no merges (tokenizer.ggml.merges) for its tokens."
        )
    model = BPE(_ids(vocabulary), _pairs(vocabulary), ignore_merges=cut.ignore_merges)
    tokenizer = Tokenizer(model)
    normalizer = cut.make_normalizer()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cut.make()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    ids = _ids(vocabulary)
    pairs = _pairs(vocabulary) if vocabulary.merges else _merges_of_scores(vocabulary, ids)
    model = BPE(
        ids,
        pairs,
        unk_token=vocabulary.text_of("unknown"),
        fuse_unk=True,
        byte_fallback="<0x0A>" in ids,
    )
    tokenizer = Tokenizer(model)
    steps: list[Any] = [normalizers.Replace(" ", _SPACE)]
    back: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.add_space:
        steps.insert(0, normalizers.Prepend(_SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer


def _ids(vocabulary: Vocabulary) -> dict[str, int]:
    return {token: number for number, token in enumerate(vocabulary.tokens)}


def _pairs(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The file's merges: two tokens with a space between, and the first may begin with one."""
    pairs = []
    for merge in vocabulary.merges:
        at = merge.find(" ", 1)
        if at < 0:
            raise ModelError(
                f"{vocabulary.path} has a damaged vocabulary: {merge[:40]!r} is no merge."
            )
        pairs.append((merge[:at], merge[at + 1 :]))
    return pairs


def _merges_of_scores(vocabulary: Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that sentencepiece's scores stand for: every way to make a token, best first.

    Of one token the split with the longer left part comes first, as in the tokenizer.json of these
    models.
    """
    if not vocabulary.scores.size:
        raise ModelError(f"{vocabulary.path} holds neither merges nor scores for its tokens.")
    inside = {
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind == NORMAL
    }
    found: list[tuple[float, int, str, str]] = []
    for token in inside:
        score = -float(vocabulary.scores[ids[token]])
        for at in range(1, len(token)):
            left = token[:at]
            if left in inside and (right := token[at:]) in inside:
                found.append((score, -at, left, right))
    found.sort()
    return [(left, right) for _, _, left, right in found]


def _add_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary, strips_after: bool) -> None:
    """Tokens that are matched whole: control tokens, which are special, and user-defined ones."""
    ends = set(vocabulary.end_ids)
    special, plain = [], []
    for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True)):
        if not token:
            continue
        if kind in (CONTROL, UNKNOWN) or number in ends:
            strip = strips_after and token not in _PHI3_UNSTRIPPED
            special.append(AddedToken(token, normalized=False, special=True, rstrip=strip))
        elif kind == USER_DEFINED:
            plain.append(AddedToken(token, normalized=False, special=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)


def _add_ends(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """What encoding puts before and after a text: as the file says, else as its family does."""
    usual = (
        vocabulary.model == "llama" or find_pre_tokenizer(vocabulary.pre, vocabulary.path).add_bos
    )
    wanted = {
        "bos": usual if vocabulary.add_bos is None else vocabulary.add_bos,
        "eos": vocabulary.add_eos,
    }
    used = {
        kind: vocabulary.special[kind]
        for kind in wanted
        if wanted[kind] and kind in vocabulary.special
    }
    if not used:
        return
    texts = {kind: vocabulary.tokens[number] for kind, number in used.items()}
    before, after = (
        [texts[kind] for kind in texts if kind == "bos"],
        [texts[k] for k in texts if k == "eos"],
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[
            *before,
            "$A",
            *after,
            *[f"{t}:1" for t in before],
            "$B:1",
            *[f"{t}:1" for t in after],
        ],
        special_tokens=[(texts[kind], number) for kind, number in used.items()],
    )


def _wrap(
    vocabulary: Vocabulary, chat_template: str | dict[str, str] | None, **backend: Any
) -> PreTrainedTokenizerBase:
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {name: vocabulary.text_of(kind) for name, kind in names.items()}
    make = cast(Any, PreTrainedTokenizerFast)
    tokenizer = make(
        clean_up_tokenization_spaces=False,
        **backend,
        **{name: text for name, text in special.items() if text is not None},
    )
    tokenizer.chat_template = chat_template
    return cast(PreTrainedTokenizerBase, tokenizer)
