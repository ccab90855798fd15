"""Documents: their text, the memory of one that was read, and its file."""

from namm_llm.documents.memory import DocumentMemory
from namm_llm.documents.text import check_text, read_text

__all__ = ["DocumentMemory", "check_text", "read_text"]
