"""A stream that is saved every so often while it is read, so that a process that is killed loses
little: the next one passes over what was read, compares it, and goes on.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Sequence

from namm_llm.cache import ManagedCache
from namm_llm.document import Document, fingerprint_of
from namm_llm.documents.blocks import Text, TextBlocks
from namm_llm.documents.saved import UNREAD
from namm_llm.engine.forward import tokens_seen
from namm_llm.engine.results import OnProgress
from namm_llm.engine.session import Session
from namm_llm.errors import DocumentError
from namm_llm.io import check_writable

SaveTo = str | os.PathLike[str] | None
CHARACTERS = "characters"
"""How many the memory of a stream was made of, among the strings of its header."""


def read_document(
    session: Session, text: Text, save: SaveTo, on_progress: OnProgress | None
) -> Document:
    """See `Runner.read`. The retained tokens are those of a reading without a break. A policy that
    repeats a text needs the whole of it, and saves at the end alone.
    """
    path, ids = None if save is None else check_writable(save), array("q")
    keeps_parts = path is not None and not session.config.policy.repeats
    known = Document.load(path, session) if path and keeps_parts and path.exists() else None
    before, unread = ((0, ""), None) if known is None else _read_before(session, known)
    blocks = TextBlocks(iter([text]) if path and isinstance(text, str) else text, known=before)

    memory, last = (None, 0) if known is None else (known.cache, tokens_seen(known.cache))

    def on_pause(cache: ManagedCache, unread: Sequence[int]) -> None:
        nonlocal last
        if keeps_parts and tokens_seen(cache) - last >= session.options.save_every:
            last = tokens_seen(cache)
            saved(cache, unread)

    def saved(cache: ManagedCache, unread: Sequence[int] | None = None) -> Document:
        extra = {} if unread is None else {UNREAD: json.dumps(list(unread))}
        extra |= {CHARACTERS: str(blocks.characters)} if path else {}
        document = Document(session, cache, blocks.sha256, extra=extra, ids=ids)
        if path is not None:
            document.save(path)
        return document

    cache, ids = session.read(memory, blocks, on_progress, unread=unread or (), on_pause=on_pause)
    if known is not None and unread is None and blocks.characters == before[0]:
        return known
    return saved(cache)


def _read_before(session: Session, known: Document) -> tuple[tuple[int, str], list[int] | None]:
    """Characters and their hash, and the ids that are still to be read where the text went on."""
    text = str(known.info()["text_sha256"])
    same = known.fingerprint == fingerprint_of(session, session.document_config, text)
    if not same or CHARACTERS not in known.extra:
        then, now = (each.describe() for each in (known.cache.config, session.config))
        raise DocumentError(
            f"the memory to go on from ({then}) is none of a stream that was read with {now}; give "
            "the same settings, or save under another name."
        )
    return (int(known.extra[CHARACTERS]), text), json.loads(known.extra.get(UNREAD, "null"))
