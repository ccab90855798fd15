"""Documents: their text, the memory of one that was read, its file, and the store of such files."""

from namm_llm.documents.files import FileText, join_texts, read_file, text_of
from namm_llm.documents.home import data_folder
from namm_llm.documents.memory import DocumentMemory
from namm_llm.documents.saved import SavedHeader, SavedModel, read_header
from namm_llm.documents.settings import settings_of
from namm_llm.documents.store import MEMORY_SUFFIX, MemoryStore
from namm_llm.documents.text import check_text, read_text

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
    "settings_of",
    "text_of",
]
