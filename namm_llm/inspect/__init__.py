"""What a cache kept of a document and what it forgot: as numbers, as a page, as plots and in a
terminal.
"""

from namm_llm.inspect.entries import Span, forgotten_spans, kept_entries
from namm_llm.inspect.film import FilmInspection, inspect_film
from namm_llm.inspect.inspection import Inspection, Side, inspect_memories
from namm_llm.inspect.kinds import character_kinds, is_code, token_kind
from namm_llm.inspect.page import write_page
from namm_llm.inspect.rows import rows_of
from namm_llm.inspect.strip import write_film_page

__all__ = [
    "FilmInspection",
    "Inspection",
    "Side",
    "Span",
    "character_kinds",
    "forgotten_spans",
    "inspect_film",
    "inspect_memories",
    "is_code",
    "kept_entries",
    "rows_of",
    "token_kind",
    "write_film_page",
    "write_page",
]
