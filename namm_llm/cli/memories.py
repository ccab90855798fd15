"""Memories for the commands: opened with the settings that they were read with, recalled from the
store, or read and kept there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from namm_llm.cli.options import Settings
from namm_llm.cli.output import size, tell
from namm_llm.cli.progress import ProgressBar
from namm_llm.config import CACHE, Quantization, split
from namm_llm.config.header import config_to_dict
from namm_llm.document import Document
from namm_llm.documents import (
    MEMORY_SUFFIX,
    FileText,
    MemoryStore,
    SavedHeader,
    content_of,
    join_texts,
    read_header,
)
from namm_llm.documents.store import LIMIT_VARIABLE, Put
from namm_llm.errors import DocumentError, UsageError
from namm_llm.namm import Namm
from namm_llm.policies import parse_budget

KEEP_TOKENS = 2000  # what is shorter is read again in a moment
_LEAVE_OUT = "leave the option out, or read the document again with it."


@dataclass(frozen=True)
class Recalled:
    """The memory of documents, its ID in the store, and whether it was there already, so that
    nothing had to be read.
    """

    document: Document
    id: str
    cached: bool


def saved_path(wanted: str) -> Path | None:
    """The file of a saved memory: a .namm file, or one in the store by its name or ID. None for
    everything else; a file comes first.
    """
    if wanted.endswith(MEMORY_SUFFIX):
        return Path(wanted)
    if wanted == "-" or Path(wanted).exists():
        return None
    store = MemoryStore()
    id = store.find(wanted)
    if id is None:
        return None
    store.use(id)
    return store.path_of(id)


def open_saved(path: Path, name: str, settings: Settings) -> Document:
    """A saved memory, with the model and the settings that it was read with. name: what the user
    called it.
    """
    header = read_header(path)
    _check_same(name, header.config, settings.runner)
    return _with_its_model(name, header, settings).load().open(path)


def _with_its_model(name: str, header: SavedHeader, settings: Settings) -> Settings:
    """The settings that load a memory's model; what the user gave comes first (a wrong model is
    found when the memory is opened).
    """
    cache = split(settings.runner, CACHE)[0]
    given = {name: value for name, value in settings.runner.items() if name not in cache}
    model = header.model
    own: dict[str, Any] = {
        "model": model.name,
        # a GGUF file says itself how it is quantised
        "quantization": model.quantization
        if model.quantization in get_args(Quantization)
        else None,
        "dtype": model.dtype,
    }
    if "model" not in given:
        own |= {"revision": model.revision, "adapter": model.adapter}
        if Path(model.name).is_absolute() and not Path(model.name).exists():
            raise DocumentError(
                f"{name} was read with the model {model.name}, which is not there any "
                "more; say where it is with --model."
            )
    return replace(
        settings,
        runner={**{option: value for option, value in own.items() if value is not None}, **given},
    )


def _check_same(name: str, was: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """UsageError if a memory is asked for with other cache settings than those that it was read
    with.
    """
    settings = split(given, CACHE)[0]
    if (namm := settings.pop("namm", None)) is not None:
        read_with = was["policy"].get("namm", {}).get("fingerprint")
        if Namm.load(namm).fingerprint != read_with:
            raise UsageError(f"{name} was not read with the NAMM {namm}; {_LEAVE_OUT}")
    for option, value in settings.items():
        before, wanted = was[option], value
        if option == "policy":
            before = before["name"]
        elif option == "budget":
            before, wanted = parse_budget(before), parse_budget(value)
        if wanted != before:
            flag = f"--{option.replace('_', '-')}"
            how = f"with {flag} {before}" if before is not None else f"without {flag}"
            raise UsageError(f"{name} was read {how}, not {value}; {_LEAVE_OUT}")


def recall_or_read(files: Sequence[FileText], settings: Settings) -> Recalled:
    """The memory of documents: the one in the store if they were read before with the same weights
    and settings, else read now.
    """
    text = join_texts(files)
    runner = settings.load()
    store = MemoryStore()
    id = store.id_of(text, runner.fingerprint, config_to_dict(runner.config))
    if store.holds(id, text):
        try:
            entry, document = store.entry(id), runner.open(store.path_of(id), text)
        except DocumentError as error:  # also when another process has just removed it
            tell(f"Warning: {error}")
        else:
            tell(f"{sources_of(files)} was read before; its memory is used: {entry.title}.")
            return Recalled(document, id, True)
    with ProgressBar() as bar:
        document = runner.read(content_of(files), on_progress=bar.update)
    return Recalled(document, id, False)


def keep_reading(
    pieces: Iterator[str], settings: Settings, name: str | None, target: Path | None
) -> Recalled:
    """The memory of a stream, saved while it is read; what was saved before is gone on from."""
    runner, store, first = settings.load(), MemoryStore(), next(pieces)
    # its end is not known, so a stream is known by its name and its beginning
    id = store.id_of(f"{name}\n{first}", runner.fingerprint, config_to_dict(runner.config))
    path = target or store.path_of(id)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        tell("Going on behind what was read of it before.")
    with ProgressBar() as bar:
        document = runner.read(itertools.chain([first], pieces), save=path, on_progress=bar.update)
    return Recalled(document, id, False)


def keep(recalled: Recalled, files: Sequence[FileText], name: str | None = None) -> None:
    """Put a memory into the store, or only give it a name if it is there; what has to go for it is
    said on stderr.
    """
    store = MemoryStore()
    if not recalled.cached:
        extra = {**recalled.document.extra, "sources": sources_of(files)}
        done = store.put(recalled.id, recalled.document, name=name, extra=extra)
        _tell(done, store)
        unnamed = done.unnamed
    else:
        unnamed = store.name(recalled.id, name) if name is not None else None
    if unnamed is not None:
        tell(
            f"{name} was the name of {unnamed} before, which stays under this ID until "
            "the store is full."
        )


def keep_long(recalled: Recalled, files: Sequence[FileText], *, short: bool = False) -> None:
    """Keep what took long to read, and say so. That the disk refuses must not cost the answer.

    short: keep a short one too.
    """
    if not short and recalled.document.info()["seen_tokens"] < KEEP_TOKENS:
        return
    try:
        keep(recalled, files)
        entry = MemoryStore().entry(recalled.id)
    except DocumentError as error:
        tell(f"Warning: the memory is not kept: {error}")
        return
    tell(
        f"The memory of {sources_of(files)} is kept ({size(entry.nbytes)}), so that it is "
        f"not read again: {entry.title}. "
        f"`namm-llm documents forget {entry.id}` removes it, --no-keep keeps none."
    )


def sources_of(files: Sequence[FileText]) -> str:
    """The names of documents in one line."""
    return ", ".join(file.name for file in files)


def _tell(done: Put, store: MemoryStore) -> None:
    for entry in done.removed:
        sources = f"{entry.header.extra.get('sources', '')}, " if entry.header else ""
        tell(
            f"Removed to make room, as the least recently used: the memory {entry.id} "
            f"({sources}{size(entry.nbytes)})."
        )
    if done.over_nbytes:
        tell(
            f"Warning: the memories take {size(done.over_nbytes)} more than the limit of "
            f"{size(store.limit)}; forget some "
            f"(`namm-llm documents list` shows them) or raise {LIMIT_VARIABLE}."
        )
