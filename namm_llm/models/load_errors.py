"""What can go wrong in transformers, huggingface_hub and bitsandbytes while a model loads, each as
one line that says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub import errors as hub
from safetensors import SafetensorError

from namm_llm.errors import ModelError, NammError

_UNREACHABLE = (
    hub.LocalEntryNotFoundError,
    hub.OfflineModeIsEnabled,
    ConnectionError,
    TimeoutError,
)


@contextmanager
def as_model_error(name: str, revision: str | None = None) -> Iterator[None]:
    """Whatever the libraries raise in the block becomes a ModelError."""
    try:
        yield
    except NammError:
        raise
    except Exception as error:  # a border to other libraries, which raise nearly anything here
        raise ModelError(_explain(error, name, revision)) from error


def _explain(error: Exception, name: str, revision: str | None) -> str:
    chain = list(_causes(error))

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if is_a(hub.GatedRepoError):
        return (
            f"{name} is gated: accept its terms at https://huggingface.co/{name}, then log in with "
            "`hf auth login`."
        )
    if is_a(hub.RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on huggingface.co."
    if is_a(*_UNREACHABLE):
        return (
            f"{name} is no folder here and not among the downloaded models, and huggingface.co was "
            "not reached; name a model folder, or go online once so that it can be downloaded."
        )
    if is_a(hub.RepositoryNotFoundError, hub.HFValidationError):
        return (
            f"{name} is neither a folder here nor a model on huggingface.co; check the spelling "
            "(private models need `hf auth login`)."
        )
    if is_a(hub.EntryNotFoundError):
        return f"{name} on huggingface.co is not a whole transformers model: {_first_line(error)}"
    if is_a(SafetensorError):
        return (
            f"the weights of {name} are damaged or cut short: {_first_line(error)}. Copy or "
            "download them again."
        )
    if is_a(json.JSONDecodeError, UnicodeDecodeError):
        return (
            f"a JSON file of {name} is damaged or cut short: {_first_line(error)}. Copy or "
            "download it again."
        )
    if is_a(torch.OutOfMemoryError, MemoryError):
        return (
            f"there is not enough memory for {name}; load it with quantization='nf4', or on "
            "device='cpu'."
        )
    if "trust_remote_code" in str(error):
        return (
            f"{name} needs Python code of its own, which is not run unless you pass "
            "trust_remote_code=True; read that code first."
        )
    if is_a(ImportError):
        return f"{name} needs a package that is missing: {_first_line(error)}"
    return f"{name} cannot be loaded: {type(error).__name__}: {_first_line(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
