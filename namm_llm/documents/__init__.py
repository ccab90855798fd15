"""Documents: their text, the memory of one that was read, its file, and the store of such files.

`DocumentMemory` alone is loaded when it is first used: what is kept can be listed without torch.
"""

from typing import TYPE_CHECKING

from namm_llm.documents.files import FileText, join_texts, read_file, text_of
from namm_llm.documents.home import data_folder
from namm_llm.documents.saved import SavedHeader, SavedModel, read_header
from namm_llm.documents.store import MEMORY_SUFFIX, MemoryStore
from namm_llm.documents.text import check_text, read_text

if TYPE_CHECKING:
    from namm_llm.documents.memory import DocumentMemory

__all__ = [
    "MEMORY_SUFFIX",
    "DocumentMemory",
    "FileText",
    "MemoryStore",
    "SavedHeader",
    "SavedModel",
    "check_text",
    "data_folder",
    "join_texts",
    "read_file",
    "read_header",
    "read_text",
    "text_of",
]


def __getattr__(name: str) -> object:
    if name != "DocumentMemory":
        raise AttributeError(f"module 'namm_llm.documents' has no attribute {name!r}")
    from namm_llm.documents.memory import DocumentMemory

    globals()[name] = DocumentMemory
    return DocumentMemory
