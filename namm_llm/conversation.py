"""Conversations that are kept on disk: the memory of one, and going on with it without reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from namm_llm.config.header import config_to_dict
from namm_llm.document import Document
from namm_llm.engine.session import Session
from namm_llm.errors import CacheError, UsageError
from namm_llm.models.messages import Message
from namm_llm.models.tools import Tool

_TEXT, _IDS = "chat_text", "chat_ids"


@dataclass(frozen=True)
class Conversation:
    """What a saved conversation has beside its cache."""

    text: str
    """As the chat template renders it."""
    ids: list[int]
    """Of the text: the model's own tokens, as it wrote them."""

    @classmethod
    def of_memory(cls, extra: Mapping[str, str]) -> Conversation:
        """From what `extra` gave. UsageError for the memory of a document."""
        if _IDS not in extra:
            raise UsageError("this memory is that of a document, not of a conversation; ask it.")
        return cls(extra[_TEXT], json.loads(extra[_IDS]))

    @property
    def extra(self) -> dict[str, str]:
        """What its memory keeps of it."""
        return {_TEXT: self.text, _IDS: json.dumps(self.ids)}

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def remember(
    session: Session, messages: Sequence[Message], tools: Sequence[Tool] = ()
) -> Document | None:
    """What is kept of a conversation, as a memory; see `Runner.remember`."""
    text = session.format.template.render(session.pictures.seen(messages)[0], tools)
    ids, length = session.format.known.longest(text) or ([], 0)
    cache = session.kept_cache(ids)
    if cache is None:
        return None
    conversation = Conversation(text[:length], ids)
    return Document(session, cache, conversation.sha256, extra=conversation.extra)


def recall(session: Session, memory: Document) -> None:
    """Go on with the conversation of a memory; see `Runner.recall`."""
    conversation = Conversation.of_memory(memory.extra)
    then, now = memory.cache.config, session.config
    if config_to_dict(then) != config_to_dict(now):
        raise CacheError(
            f"the conversation was read with other cache settings ({then.describe()}) than those "
            f"of now ({now.describe()})."
        )
    session.keep_cache(conversation.ids, memory.cache)
    session.format.known.add(conversation.text, "", conversation.ids)
