"""A GGUF file written as a folder that transformers opens, its weights expanded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

import torch

from namm_llm.errors import ModelError, UsageError
from namm_llm.io import explained
from namm_llm.models.gguf.blocks import FORMATS_BY_NAME
from namm_llm.models.gguf.file import GgufFile, open_gguf
from namm_llm.models.gguf.load import load_gguf


def convert_gguf(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write the folder, whole or not at all.

    Args:
        path: of the file, as for `load_gguf`.
        folder: to write; it must not exist, or be empty.
        dtype: of the weights; None keeps that of a file that is not quantised, and takes float32
            for one that is, so that the folder computes exactly what the file does.

    Raises:
        UsageError: the folder holds something.
        ModelError: the file cannot be loaded, or the disk refuses.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not empty; name a new folder.")
    loaded = load_gguf(path, dtype=dtype or stored_dtype(open_gguf(path)))
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        with explained(target, ModelError):
            part.mkdir(parents=True)
            loaded.model.save_pretrained(part)
            loaded.tokenizer.save_pretrained(part)
            if target.exists():
                target.rmdir()  # empty, and in the way of the rename on Windows
            part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def stored_dtype(file: GgufFile) -> torch.dtype:
    """The dtype of the largest matrix of a file that is not quantised; float32 of one that is."""
    matrices = [info for info in file.tensors.values() if len(info.shape) > 1]
    largest = max(matrices, key=lambda info: info.nbytes, default=None)
    if largest is None:
        return torch.float32
    quantised = any(FORMATS_BY_NAME[info.type_name].dtype is None for info in matrices)
    found = FORMATS_BY_NAME[largest.type_name].dtype
    return torch.float32 if quantised or found is None else found
