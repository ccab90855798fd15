"""The file of a saved memory: one safetensors file, the tensors of the cache and a header that says what they belong to."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from namm_llm.errors import DocumentError
from namm_llm.namm import Namm
from namm_llm.policies import Eviction

VERSION = 1
_HEADER = "namm_document"  # a single entry of the metadata, because safetensors does not keep the order of several


@dataclass(frozen=True)
class SavedHeader:
    """What a saved memory belongs to; checked before its tensors are used."""

    version: int
    model: str
    fingerprint: str
    settings: str
    policy: str
    seen_tokens: int
    text_sha256: str
    protected: list[list[int]]
    cache: dict[str, str]

    def check_belongs(self, path: Path, model: str, fingerprint: str, eviction: Eviction) -> None:
        """DocumentError if `path` holds the memory of other weights, or one that was read with other settings."""
        if self.fingerprint != fingerprint:
            raise DocumentError(
                f"{path} was saved with the weights of {self.model}, this runner has {model} (or the same in another "
                "quantization or dtype). Load that model, or read the document again."
            )
        if self.settings != settings_of(eviction):
            raise DocumentError(
                f"{path} was read with the settings '{self.policy}', this runner has '{eviction.describe()}' (or another interval or "
                "NAMM). Use the same settings, or read the document again."
            )


def settings_of(eviction: Eviction) -> str:
    """Everything that decides what is evicted, a NAMM by its fingerprint; equal texts mean equal behaviour."""
    policy = {field.name: getattr(eviction.policy, field.name) for field in fields(eviction.policy)}
    own = {name: value.fingerprint if isinstance(value, Namm) else repr(value) for name, value in policy.items()}
    rest = {name: getattr(eviction, name) for name in ("compete", "interval", "sinks", "recent", "protected")}
    return json.dumps({"policy": eviction.policy.name, **own, "budget": str(eviction.budget), **rest}, sort_keys=True)


def write(path: Path, tensors: dict[str, Tensor], header: SavedHeader) -> None:
    """Write a memory, all or nothing. DocumentError if the disk refuses."""
    # beside the target, because a rename is atomic only within one file system
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        save_file(tensors, part, {_HEADER: json.dumps(asdict(header), sort_keys=True)})
        part.replace(path)
    except OSError as error:
        raise DocumentError(f"{path} cannot be written: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise DocumentError(f"{path} cannot be written: {error}.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def read(path: Path) -> tuple[SavedHeader, dict[str, Tensor]]:
    """Header and tensors of a saved memory. DocumentError, in one line, if the file is not a whole one."""
    if not path.is_file():
        what = "is a folder, not a saved memory" if path.is_dir() else "is not there"
        raise DocumentError(f"{path} {what}; save one with DocumentMemory.save or `namm-llm read`.")
    try:
        with safe_open(str(path), framework="pt") as file:
            values = json.loads((file.metadata() or {})[_HEADER])
            if values["version"] != VERSION:
                raise DocumentError(
                    f"{path} has format version {values['version']}, this program knows version {VERSION}. Read the document again."
                )
            return SavedHeader(**values), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise DocumentError(f"{path} is damaged or cut short ({path.stat().st_size} bytes): {error}. Read the document again.") from error
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DocumentError(f"{path} is a safetensors file, but no saved memory of a document.") from error
