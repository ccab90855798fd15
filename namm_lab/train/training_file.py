"""The files that a training goes on from: safetensors with a header, replaced as a whole."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from namm_llm import NammError
from namm_llm.io import explained, replacing


def read_training_file(
    path: Path, *, key: str, version: int, framework: str, what: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and tensors. key: of the metadata that is the header. framework: `np` or `pt`. what:
    is trained, for messages. NammError for a damaged file, or one of another version.
    """
    try:
        with safe_open(str(path), framework=framework) as file:
            header = json.loads((file.metadata() or {})[key])
            if header["version"] != version:
                raise NammError(
                    f"{path} has format version {header['version']}, this program knows "
                    f"{version}: start over with --force."
                )
            # copies: the file may be replaced while they are in use
            names = file.keys()
            return header, {name: deepcopy(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise NammError(
            f"{path} is no checkpoint of {what}, or a damaged one ({error}): start over with "
            "--force."
        ) from error


def replace_training_file(path: Path, data: bytes) -> None:
    """Write a file as a whole. NammError if the disk refuses."""
    with explained(path, NammError), replacing(path) as part:
        part.write_bytes(data)
