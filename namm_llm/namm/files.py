"""The container of a saved NAMM: float32 vectors in a safetensors file, and a JSON header with the
format version.

Knows nothing about what the vectors mean (see `network.py`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from namm_llm.errors import NammFileError
from namm_llm.io import explained, replacing

VERSION = 1
HEADER = "namm"  # the only entry of the metadata: safetensors does not keep the order of several


def write(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a NAMM's file, all or nothing. Raises NammFileError when it cannot be written."""
    metadata = {HEADER: json.dumps({"version": VERSION, **header}, sort_keys=True)}
    data = to_bytes(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata
    )
    with explained(path, NammFileError), replacing(path) as part:
        part.write_bytes(data)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Inverse of `write`. Raises NammFileError for a file that is missing, damaged, of another kind
    or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(file.metadata() or {})
            # copies, because what safetensors returns may be a view of the file
            return header, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise NammFileError(f"not a safetensors file, or cut short ({error}).") from error
    except OSError as error:
        raise NammFileError(f"cannot be read: {error.strerror}.") from error


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the file's name before the message of every NammFileError; a missing file is one."""
    try:
        if not path.is_file():
            raise NammFileError("no such NAMM file.")
        yield
    except NammFileError as error:
        raise NammFileError(f"{path}: {error}") from error


def _header(metadata: dict[str, str]) -> dict[str, Any]:
    if HEADER not in metadata:
        raise NammFileError("a safetensors file, but not of a NAMM.")
    try:
        header = json.loads(metadata[HEADER])
        version = header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise NammFileError("its header is damaged.") from error
    if version != VERSION:
        raise NammFileError(
            f"format version {version}, but this namm-llm reads version {VERSION}: update namm-llm."
        )
    return dict(header)
