"""An embedding that needs no model: how often each word comes, hashed into a vector."""

from __future__ import annotations

import math
import re
from zlib import crc32

from llama_index.core.embeddings import BaseEmbedding

_SIZE = 256


class WordEmbedding(BaseEmbedding):
    """Texts with the same words are near each other."""

    def _get_text_embedding(self, text: str) -> list[float]:
        counts = [0.0] * _SIZE
        for word in re.findall(r"\w+", text.lower()):
            counts[crc32(word.encode()) % _SIZE] += 1
        length = math.hypot(*counts) or 1.0
        return [count / length for count in counts]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)
