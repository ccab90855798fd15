"""Where a model's files are, and what is wrong with them, found before anything is loaded.

Looks at files only; never at the network. A name that could be a Hugging Face id and is no folder
is left to `loading.py`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from namm_llm.errors import ModelError
from namm_llm.io import explained
from namm_llm.models.catalogue import catalogue, pulled_path
from namm_llm.models.gguf.file import is_gguf

BUNDLED = {"namm-tiny": Path(__file__).parents[1] / "models" / "namm-tiny"}
NAMM_FILE = "namm.safetensors"  # the NAMM that was made for the model beside it
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)


def locate(name: str | os.PathLike[str]) -> Path | None:
    """The checked folder of a bundled, pulled or local model, or a GGUF file; None for a Hugging
    Face id.

    Raises ModelError for what is none of them, and for a name of the catalogue that is not pulled.
    """
    if isinstance(name, str) and (pulled := pulled_path(name)) is not None:
        return pulled.parent  # the folder, so that a NAMM beside the file is found
    if name in BUNDLED:
        folder = BUNDLED[str(name)]
        if not folder.is_dir():
            raise ModelError(
                f"the bundled model {name} is missing from this installation ({folder}); install "
                "namm-llm again."
            )
    else:
        folder = Path(name).expanduser()
    if is_gguf(folder):
        if not folder.exists():
            raise ModelError(f"there is no file {name}; check the path.")
        return folder
    if folder.is_dir():
        check_folder(folder)
        return folder
    if folder.exists():
        raise ModelError(
            f"{name} is no model; name a .gguf file, or the folder that holds config.json."
        )
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name) or ".." in name:
        raise ModelError(
            f"there is no model folder {name}; name one, or a Hugging Face id such as "
            "meta-llama/Llama-3.2-1B-Instruct."
        )
    return None


def has_own_name(name: str) -> bool:
    """Whether a name means the same model in every folder and on every machine."""
    return name in BUNDLED or name in catalogue()


def check_folder(folder: Path) -> None:
    """ModelError, in one line, if the folder cannot hold a loadable model."""
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json, so it is not a model folder; name the folder that holds "
            "it."
        )
    config = _read_json(folder / "config.json")
    if "model_type" not in config and "auto_map" not in config:
        raise ModelError(
            f"{folder / 'config.json'} names no model_type; it does not describe a transformers "
            "model."
        )
    _check_weights(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{folder} has no tokenizer (tokenizer.json); copy it from where the model comes from."
        )
    if (folder / "tokenizer.json").is_file():
        _read_json(folder / "tokenizer.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with explained(path, ModelError, "read"):
            value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{path} is damaged or cut short ({path.stat().st_size} bytes): {error}. Copy or "
            "download it again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object. Copy or download it again.")
    return value


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(_read_json(index).get("weight_map", {}).values())
        if lost := sorted(name for name in names if not (folder / name).is_file()):
            raise ModelError(
                f"{folder} lacks {len(lost)} of {len(names)} weight files, first {lost[0]}; copy "
                "or download them again."
            )
    files = sorted(folder.glob("*.safetensors"))
    weights = [path for path in files if path.name != NAMM_FILE]
    if not weights and not list(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder} holds no weights (*.safetensors); copy or download the whole model."
        )
    for path in weights:
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            size = path.stat().st_size
            raise ModelError(
                f"{path} is damaged or cut short ({size} bytes): {error}. Copy or download it "
                "again."
            ) from error
