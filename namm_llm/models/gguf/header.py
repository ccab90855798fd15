"""The header of one GGUF file: metadata, and where each tensor lies.

A file comes from strangers. Every count, length, size and offset is compared with the bytes that
the file has before anything is allocated, so that a damaged file is one ModelError within a second.

Source: the GGUF specification, version 3 (ggml, docs/gguf.md).
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from namm_llm.errors import ModelError
from namm_llm.io import explained
from namm_llm.models.gguf.blocks import BLOCK_FORMATS, TYPE_NAMES
from namm_llm.models.gguf.cursor import Cursor, MetadataValue
from namm_llm.models.gguf.metadata import Metadata

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_DIMENSIONS: Final = 4
_MAX_KEYS: Final = 1 << 16
_MAX_TENSORS: Final = 1 << 16
_KEY_BYTES: Final = 13  # at least: a length, a letter, a type
_TENSOR_BYTES: Final = 33  # at least: a length, a letter, dimensions, a type, an offset
_DEFAULT_ALIGNMENT: Final = 32
_ALIGNMENT_UNIT: Final = 8


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies and how it is packed."""

    name: str
    """The name in the file, such as blk.0.attn_q.weight."""
    shape: tuple[int, ...]
    """In torch's order: the last dimension is contiguous in memory."""
    type_name: str
    """The ggml type, such as Q4_1."""
    offset: int
    """Of its first byte, from the start of the file."""
    nbytes: int
    """Bytes in the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """Everything in a file but the weights."""

    path: Path
    """The file."""
    metadata: Metadata
    """Keys and values."""
    tensors: dict[str, TensorInfo]
    """By name, in the order of the file."""
    nbytes: int
    """Bytes before the weights begin."""


def read_header(path: Path) -> Header:
    """The checked header of one file. ModelError, in one line, if it is no GGUF file or damaged."""
    buffer = map_file(path)
    cursor = Cursor(memoryview(buffer), str(path))
    _check_start(cursor, path)
    n_tensors = cursor.count("the number of tensors", _TENSOR_BYTES, _MAX_TENSORS)
    n_keys = cursor.count("the number of metadata keys", _KEY_BYTES, _MAX_KEYS)
    metadata = Metadata(_read_values(cursor, n_keys), str(path))
    entries = [_read_entry(cursor) for _ in range(n_tensors)]
    alignment = metadata.integer("general.alignment", _DEFAULT_ALIGNMENT, least=1)
    if alignment % _ALIGNMENT_UNIT:
        raise cursor.damaged(f"general.alignment is {alignment}, no multiple of {_ALIGNMENT_UNIT}")
    start = math.ceil(cursor.position / alignment) * alignment
    infos = [_tensor_info(*entry, start, alignment, cursor) for entry in entries]
    _check_places(infos, len(buffer), cursor)
    return Header(
        path=path,
        metadata=metadata,
        tensors={info.name: info for info in infos},
        nbytes=min(start, len(buffer)),
    )


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file, mapped and not read. ModelError if it cannot be opened or is empty."""
    with explained(path, ModelError, "read"), path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            raise ModelError(f"{path} is empty; copy or download it again.")
        # copy on write: torch warns of memory that cannot be written to, and nobody writes
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)


def _check_start(cursor: Cursor, path: Path) -> None:
    if cursor.left < 24 or bytes(cursor.take(4, "the first word")) != _MAGIC:
        raise ModelError(f"{path} is not a GGUF file: it does not begin with GGUF.")
    version = cursor.integer("I", "the version")
    if version in _VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise ModelError(
            f"{path} is a big-endian GGUF file; convert the model again on this machine."
        )
    raise ModelError(f"{path} is GGUF version {version}; versions 2 and 3 can be read.")


def _read_values(cursor: Cursor, count: int) -> dict[str, MetadataValue]:
    values: dict[str, MetadataValue] = {}
    for number in range(count):
        key = cursor.text(f"metadata key {number}")
        if not key or key in values:
            raise cursor.damaged(f"metadata key {number} is {'given twice' if key else 'empty'}")
        values[key] = cursor.value(key)
    return values


def _read_entry(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text("a tensor's name")
    if not name or not name.isprintable():
        raise cursor.damaged(f"a tensor is named {name[:40]!r}")
    dimensions = cursor.integer("I", f"the dimensions of {name}")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise cursor.damaged(f"{name[:80]} has {dimensions} dimensions")
    sizes = [cursor.integer("Q", f"the shape of {name}") for _ in range(dimensions)]
    kind = cursor.integer("I", f"the type of {name}")
    return name, tuple(reversed(sizes)), kind, cursor.integer("Q", f"the offset of {name}")


def _tensor_info(
    name: str,
    shape: tuple[int, ...],
    kind: int,
    offset: int,
    start: int,
    alignment: int,
    cursor: Cursor,
) -> TensorInfo:
    layout = BLOCK_FORMATS.get(kind)
    if layout is None:
        if kind in TYPE_NAMES:
            known = ", ".join(found.name for found in BLOCK_FORMATS.values())
            raise ModelError(
                f"tensor {name} has the type {TYPE_NAMES[kind]}, which cannot be read; use a file "
                f"quantised as one of {known}."
            )
        raise cursor.damaged(f"tensor {name} has the unknown type {kind}")
    elements = math.prod(shape)
    if elements == 0 or shape[-1] % layout.block_size:
        raise cursor.damaged(f"tensor {name} has the shape {list(shape)} in {layout.name}")
    if offset % alignment:
        raise cursor.damaged(f"tensor {name} begins at byte {offset}, no multiple of {alignment}")
    return TensorInfo(
        name=name,
        shape=shape,
        type_name=layout.name,
        offset=start + offset,
        nbytes=elements // layout.block_size * layout.block_bytes,
    )


def _check_places(infos: list[TensorInfo], size: int, cursor: Cursor) -> None:
    """ModelError unless every tensor lies within the file, apart, and under its own name."""
    if len({info.name for info in infos}) < len(infos):
        raise cursor.damaged("two tensors have the same name")
    ordered = sorted(infos, key=lambda info: info.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise cursor.damaged(f"tensors {before.name} and {after.name} overlap")
    if ordered and (end := ordered[-1].offset + ordered[-1].nbytes) > size:
        raise cursor.damaged(f"tensor {ordered[-1].name} ends at byte {end}")
