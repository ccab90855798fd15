"""All that a run reads: texts with their held-out part, the vocabulary of names, the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from namm_lab.tasks.words import Names, common_words
from namm_lab.tiny.documents import World
from namm_lab.tiny.model import POSITIONS
from namm_lab.tiny.prose import (
    Corpus,
    Text,
    books,
    code_corpus,
    docstrings,
    library_sources,
    prose_corpus,
)
from namm_lab.tiny.tokenizer import Encoder, extend_tokenizer, train_tokenizer, wrap


@dataclass(frozen=True)
class Data:
    """Tokenizer, names and corpora of all splits."""

    tokenizer: PreTrainedTokenizerFast
    vocabulary: list[str]
    prose: dict[str, Corpus]
    code: dict[str, Corpus]
    """Both by `train` and `held out`."""
    held_out_prose: list[str]

    def world(self, split: str) -> World:
        """Training text with training names, or held-out text with the names of `split`."""
        part = "train" if split == "train" else "held out"
        names = Names(self.vocabulary, split)
        return World(Encoder(self.tokenizer), names, self.prose[part], self.code[part])


def load_data(
    folder: Path | None, work: Path, modules: int | None = None, start: Path | None = None
) -> Data:
    """Reads the books (without a folder: docstrings) and the standard library; trains the tokenizer
    once, or takes the one of the model to start from.
    """
    sources = list(library_sources(modules))
    prose = [docstrings(source) for source in sources] if folder is None else books(folder)
    vocabulary = common_words(
        text.content for text in prose + [docstrings(source) for source in sources]
    )
    tokenizer = _tokenizer(work / "tokenizer.json", prose, sources, start)
    encode = Encoder(tokenizer)
    return Data(
        tokenizer,
        vocabulary,
        {part: prose_corpus(texts, encode) for part, texts in _by_part(prose).items()},
        {part: code_corpus(texts, encode) for part, texts in _by_part(sources).items()},
        [text.name for text in prose if text.held_out],
    )


def _by_part(texts: list[Text]) -> dict[str, list[Text]]:
    return {
        "train": [text for text in texts if not text.held_out],
        "held out": [text for text in texts if text.held_out],
    }


def _tokenizer(
    path: Path, prose: list[Text], code: list[Text], start: Path | None
) -> PreTrainedTokenizerFast:
    if not path.exists() and start is not None:
        extend_tokenizer(Tokenizer.from_file(str(start / "tokenizer.json"))).save(str(path))
    elif not path.exists():
        train_tokenizer(text.content for text in prose + code if not text.held_out).save(str(path))
    return wrap(Tokenizer.from_file(str(path)), POSITIONS)
