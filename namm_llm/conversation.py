"""What a saved conversation has beside its cache: its text, and the ids that the model read and
wrote for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from namm_llm.errors import UsageError

_TEXT, _IDS = "chat_text", "chat_ids"


@dataclass(frozen=True)
class Conversation:
    """text: as the chat template renders it. ids: of the text, the model's own tokens as it wrote
    them.
    """

    text: str
    ids: list[int]

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
