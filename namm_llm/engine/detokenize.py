"""Token ids to text, one at a time, never half a character.

Bytes of a character that is not yet whole are held back; if the answer ends within a character,
they are dropped. Special tokens have no text.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_CONTEXT = 4  # tokens of the prompt that decide whether the answer's first word begins with a space


class Detokenizer:
    """The text of one answer that follows `prompt`."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        context = list(prompt[-_CONTEXT:])
        if tokenizer.decode(context).endswith("\N{REPLACEMENT CHARACTER}"):
            context = []  # half a character: its text would be taken for the answer's
        self._stream = DecodeStream(ids=context, skip_special_tokens=True)

    def feed(self, token: int) -> str:
        """The text that became whole with this token; often one word, sometimes nothing."""
        return self._stream.step(self._tokenizer, token) or ""
