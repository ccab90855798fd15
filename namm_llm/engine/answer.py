"""The text of one answer while it grows: tokens in, pieces out."""

from __future__ import annotations

from tokenizers import Tokenizer

from namm_llm.engine.detokenize import Detokenizer
from namm_llm.engine.reply import Reply
from namm_llm.engine.results import Piece
from namm_llm.engine.stopping import StopStrings


class AnswerText:
    """Turns the tokens of a `Reply` into pieces, and ends it where a stop string comes."""

    def __init__(self, reply: Reply, tokenizer: Tokenizer, stops: tuple[str, ...]) -> None:
        self._reply = reply
        self._detokenizer = Detokenizer(tokenizer, reply.prompt)
        self._stops = StopStrings(stops)
        self._shown: list[str] = []
        self._pending: list[int] = []

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._shown)

    @property
    def is_cut(self) -> bool:
        """Whether a stop string came, so that the model wrote more than the text says."""
        return self._stops.found

    def feed(self, token: int) -> Piece | None:
        """The piece that this token completes, if it does."""
        self._pending.append(token)
        text = self._stops.feed(self._detokenizer.feed(token))
        if self._stops.found:
            self._reply.finish_reason = "stop"
        return self._piece(text)

    def finish(self) -> Piece | None:
        """What was held back because it might have become a stop string."""
        return self._piece(self._stops.flush())

    def _piece(self, text: str) -> Piece | None:
        if not text:
            return None
        self._shown.append(text)
        piece = Piece(text, tuple(self._pending))
        self._pending.clear()
        return piece
