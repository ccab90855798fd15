"""Built tokenizers on disk, because merges that follow from 262 144 scores take seconds to find.

The name of an entry is a hash of everything that it was built from, so an entry never goes stale. A
damaged entry is built again; a folder that cannot be written to only costs the time.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import tokenizers
from tokenizers import Tokenizer

from namm_llm.models.gguf.vocabulary import Vocabulary

_RULES: Final = 1  # counts changes of how tokenizers are built


def cache_key(vocabulary: Vocabulary, strips_after: bool) -> str:
    """64 hexadecimal digits of everything that the tokenizer depends on."""
    digest = hashlib.sha256()
    settings = (
        _RULES,
        tokenizers.__version__,
        strips_after,
        vocabulary.model,
        vocabulary.pre,
        sorted(vocabulary.special.items()),
        vocabulary.add_bos,
        vocabulary.add_eos,
        vocabulary.add_space,
        len(vocabulary.tokens),
    )
    digest.update(repr(settings).encode())
    for texts in (vocabulary.tokens, vocabulary.merges):
        digest.update("\0".join(texts).encode())
        digest.update(b"\1")
    digest.update(vocabulary.kinds.tobytes())
    digest.update(vocabulary.scores.tobytes())
    return digest.hexdigest()


def read_entry(folder: Path, key: str) -> Path | None:
    """The tokenizer.json of that key; None if there is none."""
    path = folder / f"{key}.json"
    return path if path.is_file() else None


def write_entry(folder: Path, key: str, tokenizer: Tokenizer) -> None:
    """Keep a tokenizer, whole or not at all; nothing happens if the disk refuses."""
    part = folder / f".{key}.{uuid4().hex}.part"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(tokenizer.to_str(), encoding="utf-8")
            part.replace(folder / f"{key}.json")
        finally:
            part.unlink(missing_ok=True)
