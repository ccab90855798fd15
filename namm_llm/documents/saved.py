"""The file of a saved memory: one safetensors file with the tensors of the cache and a header that
says what they belong to.

The header carries a checksum of itself and one of the tensors, so a file that was cut or altered is
never taken for a memory. Tensors are hashed after they were read, and it is these that are used.
Headers are read without torch, which takes seconds to import.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from namm_llm.errors import DocumentError
from namm_llm.io import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from namm_llm.models.loading import LoadedModel

VERSION = 4
UNREAD = "unread_ids"
"""Of a stream that goes on: the ids behind those in its cache, among the strings of the header."""
# a single entry of the metadata, because safetensors does not keep the order of several
_HEADER = "namm_document"
_CHECKSUM = "header_sha256"


@dataclass(frozen=True)
class SavedModel:
    """The model that a memory was read with."""

    name: str
    """A bundled model, a name of the catalogue, a Hugging Face id, or an absolute path."""
    revision: str | None
    quantization: str | None
    dtype: str
    fingerprint: str
    """The same for the same weights (their quantization and dtype included) and tokenizer."""
    template: str
    """The same for the same chat template; empty for none."""
    adapter: str | None = None
    """Absolute path of the adapter that was added to the weights."""

    @classmethod
    def of(cls, loaded: LoadedModel) -> SavedModel:
        """What memories that this model reads belong to."""
        from namm_llm.models.fingerprint import template_fingerprint
        from namm_llm.models.locate import has_own_name

        is_folder = loaded.folder is not None and not has_own_name(loaded.model_id)
        return cls(
            name=str(loaded.folder.resolve()) if is_folder and loaded.folder else loaded.model_id,
            revision=getattr(loaded.model.config, "_commit_hash", None),
            quantization=loaded.quantization,
            dtype=str(loaded.model.dtype).removeprefix("torch."),
            fingerprint=loaded.fingerprint,
            template=template_fingerprint(loaded.tokenizer),
            adapter=None if loaded.adapter is None else str(loaded.adapter.folder.resolve()),
        )

    def __str__(self) -> str:
        adapter = self.adapter and f"adapter {self.adapter}"
        details = filter(None, (self.revision, self.quantization, self.dtype, adapter))
        return f"{self.name} ({', '.join(details)})"


@dataclass(frozen=True)
class SavedHeader:
    """What is known of a saved memory without its tensors."""

    version: int
    model: SavedModel
    config: dict[str, Any]
    """All settings that it was read with, as of `config_to_dict`."""
    policy: str
    """The same in one line."""
    seen_tokens: int
    stored_tokens: int
    text_sha256: str
    """Of the text that was read; see `Document.extend` for one that was added to."""
    extra: dict[str, str]
    """Strings of whoever saved it, such as a name."""
    cache: dict[str, str]
    """The numbers beside the tensors."""
    tensors_sha256: str
    """What `checksum` gives for the tensors."""

    @property
    def fingerprint(self) -> str:
        """As of `Document`."""
        return memory_fingerprint(self.model, self.config, self.text_sha256)

    def check_belongs(self, path: Path, model: SavedModel) -> None:
        """DocumentError if the memory in `path` is one of other weights, or was read through
        another chat template.
        """
        if self.model.fingerprint != model.fingerprint:
            raise DocumentError(
                f"{path} was saved with the weights of {self.model}, this runner has {model}. "
                "Load that model, or read the document again."
            )
        if self.model.template != model.template:
            raise DocumentError(
                f"{path} was read through another chat template than {model} has now. "
                "Put the old one back, or read the document again."
            )


def memory_fingerprint(model: SavedModel, config: Mapping[str, Any], text_sha256: str) -> str:
    """The same for the same text, read by the same model with the same settings (`config`, as of
    `config_to_dict`).
    """
    whole = [model.fingerprint, model.template, config, text_sha256]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and bytes of these tensors (on the CPU, contiguous),
    hashed side by side in threads.
    """
    import torch

    def of(name: str) -> str:
        tensor = tensors[name]
        data = tensor.flatten().view(torch.uint8).numpy().data
        return f"{name} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}\n"

    with ThreadPoolExecutor() as threads:
        return hashlib.sha256("".join(threads.map(of, sorted(tensors))).encode()).hexdigest()


def write(path: Path, tensors: dict[str, Tensor], header: SavedHeader) -> None:
    """Write a memory, all or nothing, on the disk when this returns. DocumentError if the disk
    refuses.
    """
    from safetensors.torch import save_file

    values = asdict(header)
    text = json.dumps({**values, _CHECKSUM: _checksum_of(values)}, sort_keys=True)
    try:
        with replacing(path) as part:
            save_file(tensors, part, {_HEADER: text})
    except OSError as error:
        raise DocumentError(f"{path} cannot be written: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise DocumentError(
            f"{path} cannot be written: {str(error).rpartition('I/O error: ')[2]}."
        ) from error


def read(path: Path) -> tuple[SavedHeader, dict[str, Tensor]]:
    """Header and tensors of a saved memory, each checked. DocumentError, in one line, if the file
    is not a whole one.
    """
    return _read(path, with_tensors=True)


def read_header(path: str | os.PathLike[str]) -> SavedHeader:
    """The header of a saved memory, without loading a model or tensors. DocumentError as of `read`,
    but for the bytes of the tensors.
    """
    return _read(Path(path), with_tensors=False)[0]


def _read(path: Path, *, with_tensors: bool) -> tuple[SavedHeader, dict[str, Tensor]]:
    while True:
        file = _identity(path)
        try:
            return _read_once(path, with_tensors=with_tensors)
        except DocumentError:
            # safetensors opens a file twice; a save in between gives it the header of one memory
            # and the tensors of another
            if _identity(path) == file:
                raise


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Another one after a save."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read_once(path: Path, *, with_tensors: bool) -> tuple[SavedHeader, dict[str, Tensor]]:
    if not path.is_file():
        what = "is a folder, not a saved memory" if path.is_dir() else "is not there"
        raise DocumentError(f"{path} {what}; save one with Document.save or `namm-llm read`.")
    try:
        with safe_open(str(path), framework="pt" if with_tensors else "numpy") as file:
            header = _header(path, (file.metadata() or {})[_HEADER])
            # copies: what safetensors gives may be a view of the file, which others may change
            names = file.keys() if with_tensors else []
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise DocumentError(
            f"{path} is damaged or cut short ({path.stat().st_size} bytes): {error}. "
            "Read the document again."
        ) from error
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DocumentError(
            f"{path} is a safetensors file, but no saved memory of a document."
        ) from error
    if with_tensors and checksum(tensors) != header.tensors_sha256:
        raise DocumentError(
            f"{path} is damaged: its numbers are not those that were saved. "
            "Read the document again."
        )
    return header, tensors


def _header(path: Path, text: str) -> SavedHeader:
    values = json.loads(text)
    if values["version"] != VERSION:
        raise DocumentError(
            f"{path} has format version {values['version']}, this program knows version {VERSION}. "
            "Read the document again."
        )
    if values.pop(_CHECKSUM) != _checksum_of(values):
        raise DocumentError(
            f"{path} is damaged: its header is not the one that was saved. Read the document again."
        )
    return SavedHeader(**{**values, "model": SavedModel(**values["model"])})


def _checksum_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
