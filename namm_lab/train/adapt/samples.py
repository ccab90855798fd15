"""What an adapter learns from and is measured on: passages of the user's texts."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from namm_lab.tasks.texts import load_texts
from namm_lab.train.adapt.settings import Loss
from namm_llm import ContextError, UsageError
from namm_llm.models.loading import LoadedModel
from namm_llm.models.prompt import PromptFormat

REPEAT = "Repeat the text above, word for word."
_AROUND = 128  # positions for what stands around a passage
_CHARACTERS = 16  # of a token, at most, in most texts
_TRIES = 100


@dataclass(frozen=True)
class AdaptSample:
    """A document that is read and evicted, and what the model has to say after it."""

    loss: Loss
    document: tuple[int, ...]
    """Ids that are read first; then the cache evicts."""
    prompt: tuple[int, ...]
    """Ids between the document and the target, never evicted."""
    target: tuple[int, ...]
    """Ids to predict, never evicted."""


@dataclass(frozen=True)
class TextSource:
    """Passages of one split of the texts, in a model's own tokens.

    All texts stand one after the other, and a passage begins at any line. Raises UsageError where
    there is too little text, ContextError for passages that do not fit.
    """

    loaded: LoadedModel
    split: str
    """`train` or `validation`: they share no text."""
    texts: Path | None
    """A folder; None for what Python brings along."""
    length: int
    """Tokens of a passage."""

    def __post_init__(self) -> None:
        positions = self.loaded.positions
        if positions is not None and 2 * self.length + _AROUND > positions:
            raise ContextError(
                f"passages of {self.length} tokens and as many after them do not fit "
                f"{self.loaded.model_id}, which was trained on {positions} positions: give a "
                "smaller --length."
            )
        found = len(self.format.encode(self.text[: 2 * self.length * _CHARACTERS]))
        if found < 2 * self.length:
            raise UsageError(
                f"the split {self.split} of {self.texts or 'the texts'} has {found} tokens, and a "
                f"sample needs {2 * self.length}: add texts, or give a smaller --length."
            )

    @cached_property
    def format(self) -> PromptFormat:
        """Texts to ids."""
        return PromptFormat(self.loaded.tokenizer, self.loaded.backend, self.loaded.model_id)

    @cached_property
    def text(self) -> str:
        """All texts of the split."""
        found = load_texts(self.split, self.texts)
        return "\n\n".join((*found.prose, *found.code))

    def sample(self, loss: Loss, seed: str) -> AdaptSample:
        """A sample for this loss; the same for the same seed."""
        rng = random.Random(seed)
        if loss == "repeat":
            text = self._passage(rng, self.length)
            return AdaptSample(
                loss,
                document=tuple(self.format.document(text)),
                prompt=tuple(self.format.question(self._request)),
                target=tuple(self.format.encode(text)),
            )
        ids = tuple(self.format.prompt(self._passage(rng, 2 * self.length)))
        return AdaptSample(loss, ids[: self.length], (), ids[self.length :])

    @property
    def _request(self) -> str | list[dict[str, str]]:
        # as a message, because a text would be put in the form of a short question
        is_chat = self.format.template.is_there
        return [{"role": "user", "content": REPEAT}] if is_chat else REPEAT

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n+", self.text))]

    def _passage(self, rng: random.Random, tokens: int) -> str:
        for _ in range(_TRIES):
            start = rng.choice(self._lines)
            text = self.text[start : start + tokens * _CHARACTERS]
            starts = self.format.token_starts(text)
            if len(starts) >= tokens:
                return text[: starts[tokens]] if len(starts) > tokens else text
        return self.text[: tokens * _CHARACTERS][: self._end(tokens)]

    def _end(self, tokens: int) -> int:
        """Where the first passage ends, which is long enough."""
        starts = [*self.format.token_starts(self.text[: tokens * _CHARACTERS]), len(self.text)]
        return starts[tokens]
