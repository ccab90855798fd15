"""Documents on disk: the text of files, the format of saved memories and their store.

Nothing here imports torch when it is imported, so that what is kept can be listed quickly.
"""

from namm_llm.documents.files import FileText, content_of, join_texts, read_file, read_film, text_of
from namm_llm.documents.saved import SavedHeader, SavedModel, read_header
from namm_llm.documents.store import MEMORY_SUFFIX, MemoryStore
from namm_llm.documents.text import check_text, read_text

__all__ = [
    "MEMORY_SUFFIX",
    "FileText",
    "MemoryStore",
    "SavedHeader",
    "SavedModel",
    "check_text",
    "content_of",
    "join_texts",
    "read_file",
    "read_film",
    "read_header",
    "read_text",
    "text_of",
]
