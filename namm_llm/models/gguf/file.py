"""A GGUF model on disk: one file or the parts of a split one, with its tensors mapped."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from namm_llm.errors import ModelError
from namm_llm.models.gguf.header import Header, TensorInfo, map_file, read_header
from namm_llm.models.gguf.metadata import Metadata

SUFFIX: Final = ".gguf"
_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf")
_SAMPLES: Final = 16  # windows of each tensor that the fingerprint reads
_WINDOW_BYTES: Final = 64
_FILE_TYPES: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    21: "Q2_K_S",
    25: "IQ4_NL",
    30: "IQ4_XS",
    32: "BF16",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class GgufFile:
    """The headers of a model's files, and its weights, which are read when they are used."""

    path: Path
    """The file, or the first of its parts."""
    headers: tuple[Header, ...]
    """Of every part, in order."""

    @property
    def metadata(self) -> Metadata:
        """Of the first part, which holds the model's description."""
        return self.headers[0].metadata

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every tensor of every part, by its name in the file."""
        return {name: info for header in self.headers for name, info in header.tensors.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def quantization(self) -> str:
        """For people: what the file says of itself, such as Q4_K_M, else its main format."""
        named = self.metadata.get("general.file_type")
        if isinstance(named, int) and named in _FILE_TYPES:
            return _FILE_TYPES[named]
        sizes: Counter[str] = Counter()
        for info in self.tensors.values():
            sizes[info.type_name] += info.nbytes
        return sizes.most_common(1)[0][0]

    def raw(self, name: str) -> Tensor:
        """The packed rows of a tensor [rows, row_bytes] (uint8), mapped and not copied."""
        info = self.tensors[name]
        flat = torch.from_numpy(self._bytes[name][info.offset : info.offset + info.nbytes])
        return flat.view(math.prod(info.shape[:-1]), -1)

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that are the same for the same file.

        SHA-256 over every header byte (so over all metadata, names, shapes, types and offsets) and
        over 16 windows of 64 bytes of each tensor: milliseconds for a file of any size. Two files
        that differ only outside these windows have the same fingerprint.
        """
        digest = hashlib.sha256()
        for header, mapping in zip(self.headers, self._mappings, strict=True):
            digest.update(mapping[: header.nbytes])
            for info in header.tensors.values():
                end = info.offset + info.nbytes
                step = max(_WINDOW_BYTES, (info.nbytes - _WINDOW_BYTES) // (_SAMPLES - 1))
                for start in range(info.offset, end, step):
                    digest.update(mapping[start : min(start + _WINDOW_BYTES, end)])
        return digest.hexdigest()[:32]

    def release(self) -> None:
        """Take what was read out of memory; what is used again is read from the file again."""
        for mapping in self._mappings:
            if hasattr(mapping, "madvise"):  # not on Windows, which drops mapped pages by itself
                mapping.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def _mappings(self) -> tuple[mmap.mmap, ...]:
        return tuple(map_file(header.path) for header in self.headers)

    @cached_property
    def _bytes(self) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
        """The mapped part that holds each tensor."""
        parts = [np.frombuffer(mapping, np.uint8) for mapping in self._mappings]
        return {
            name: part
            for header, part in zip(self.headers, parts, strict=True)
            for name in header.tensors
        }


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a path is meant as a GGUF model.

    That is a file of that suffix, or a folder of such files without a config.json.
    """
    place = Path(path).expanduser()
    if place.suffix.lower() == SUFFIX:
        return not place.is_dir()
    return place.is_dir() and not (place / "config.json").exists() and bool(_in_folder(place))


def open_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """The model of a file, of any part of a split file, or of a folder with one model.

    Raises:
        ModelError: nothing is there, a part is missing, a folder holds several models, or a file is
            damaged.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        place = _only(place)
    elif not place.is_file():
        raise ModelError(f"there is no file {path}; check the path.")
    headers = tuple(read_header(part) for part in _parts(place))
    stated = headers[0].metadata.integer("split.count", 1, least=0)
    if stated > len(headers):
        raise ModelError(
            f"{headers[0].path} is one of {stated} parts, and its name does not say where the "
            "others are; name it *-00001-of-0000N.gguf as it was."
        )
    names = Counter(name for header in headers for name in header.tensors)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ModelError(
            f"the parts of {headers[0].path} both hold {twice[0]}; they are of two models."
        )
    if not names:
        raise ModelError(f"{headers[0].path} holds no weights, only a vocabulary or a description.")
    return GgufFile(path=headers[0].path, headers=headers)


def _in_folder(folder: Path) -> list[Path]:
    """The models of a folder: of split ones the first part, without projectors for images."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX)
    named = [path for path in files if not path.name.lower().startswith("mmproj")]
    parts = [(path, _PART.fullmatch(path.name)) for path in named]
    return [path for path, part in parts if part is None or int(part["number"]) == 1]


def _only(folder: Path) -> Path:
    models = _in_folder(folder)
    if not models:
        raise ModelError(f"{folder} holds no *{SUFFIX} file (of a split model, no first part).")
    if len(models) > 1:
        names = ", ".join(path.name for path in models[:5])
        raise ModelError(
            f"{folder} holds {len(models)} GGUF models ({names}); name one of the files."
        )
    return models[0]


def _parts(path: Path) -> list[Path]:
    """All parts of a split file in order; the file itself if it is not split."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    total = int(match["total"])
    parts = [
        path.with_name(f"{match['stem']}-{number:05d}-of-{total:05d}{SUFFIX}")
        for number in range(1, total + 1)
    ]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ModelError(
            f"{path} is one of {total} parts and {len(missing)} are missing, first {missing[0]}; "
            "put them into the same folder."
        )
    return parts
