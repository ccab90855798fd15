"""Models whose weights stay quantised in memory on a CPU: GGUF files, and folders quantised at
load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from namm_llm.attention.observation import cpu_multiplies_bfloat16
from namm_llm.errors import ModelError, UsageError
from namm_llm.io import data_folder
from namm_llm.models.adapter import Adapter
from namm_llm.models.gguf import GgufModel, load_gguf
from namm_llm.models.gguf.weights import Change
from namm_llm.models.packed import (
    Backend,
    Packer,
    backend,
    describe,
    from_embedding,
    from_linear,
    fuse_layers,
)

PACKED = {"int4": 4, "int8": 8}
"""Quantisations that these kernels compute in, with their bits."""
_LOG = logging.getLogger("namm_llm")


def activation_dtype() -> torch.dtype:
    """The dtype of activations and of the cache beside packed weights.

    bfloat16 where the CPU multiplies in it: half the memory of the cache, and faster attention.
    """
    return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32


def load_packed_file(
    path: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    adapt: Callable[[PreTrainedConfig], None] | None = None,
    adapter: Adapter | None = None,
) -> GgufModel:
    """The model of a GGUF file; on a CPU its weights stay packed, on a GPU they are expanded.

    dtype: of activations; None for the default of the device. adapt: as of `load_gguf`. adapter:
    the maps that it changes are expanded one by one and, on a CPU, packed again with 8 bits. Raises
    ModelError.
    """
    cache = data_folder() / "tokenizers"
    if device.type != "cpu":
        half = dtype or torch.bfloat16
        changes = changes_of(adapter, path.name, half, pack=False)
        loaded = load_gguf(path, dtype=half, tokenizer_cache=cache, adapt=adapt, changes=changes)
        loaded.model.to(device)  # type: ignore[arg-type]
        return loaded
    dtype = dtype or activation_dtype()
    packer = Packer(dtype)
    loaded = load_gguf(
        path,
        dtype=dtype,
        make_linear=packer.linear,
        make_embedding=packer.embedding,
        tokenizer_cache=cache,
        adapt=adapt,
        changes=changes_of(adapter, path.name, dtype, pack=True),
    )
    if loaded.expanded and backend() is not Backend.OFF:
        _say(
            f"{path.name}: {len(loaded.expanded)} layers have no packed kernel here and are "
            f"expanded, first {loaded.expanded[0]}."
        )
    fuse_layers(loaded.model)
    return loaded


def check_mergeable(adapter: Adapter | None, quantization: str | None, *, on_cpu: bool) -> None:
    """UsageError if weights are quantised while they load, so that no adapter can be added."""
    if adapter and quantization is not None and not (quantization in PACKED and on_cpu):
        raise UsageError(
            f"an adapter cannot be added to weights that {quantization} quantises while they load; "
            "leave quantization out, or merge the adapter with peft and load that folder."
        )


def changes_of(
    adapter: Adapter | None, name: str, dtype: torch.dtype, *, pack: bool
) -> Callable[[PreTrainedModel], dict[str, Change]] | None:
    """How `load_gguf` merges an adapter: each map that it changes, packed with 8 bits if that is
    wanted and possible, else in `dtype`.
    """
    if adapter is None:
        return None

    def change(key: str, linear: nn.Linear) -> nn.Module:
        adapter.merge(key, linear)
        packed = from_linear(linear, 8) if pack else None
        return linear.to(dtype) if packed is None else packed

    def changes(model: PreTrainedModel) -> dict[str, Change]:
        adapter.check(model, name)
        return {key: partial(change, key) for key in adapter.maps}

    return changes


def pack_model(model: Any, quantization: Literal["int4", "int8"]) -> None:
    """Quantise the linear maps of a model on the CPU in place, and its embedding where it is tied.

    Raises ModelError if no kernel works here, or if none of the maps can be quantised.
    """
    if backend() is Backend.OFF:
        raise ModelError(f"quantization='{quantization}' needs packed kernels ({describe()}).")
    bits = cast(Literal[4, 8], PACKED[quantization])
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    left, packed = [], 0
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or (tied and module is head):
            continue
        made = from_linear(module, bits)
        if made is None:
            left.append(name)
            continue
        _replace(model, name, made)
        packed += 1
    if not packed:
        raise ModelError(
            f"no layer of this model can be quantised to {quantization}: its widths are not "
            "multiples of 32; leave quantization out."
        )
    if tied:
        _pack_tied(model, bits)
    if left:
        _say(
            f"{len(left)} layers keep their precision, as their widths are not multiples of 32, "
            f"first {left[0]}."
        )
    fuse_layers(model)


def _pack_tied(model: Any, bits: Literal[4, 8]) -> None:
    """Embedding and head share their packed table, as they shared their weights."""
    table = from_embedding(cast(nn.Embedding, model.get_input_embeddings()), bits)
    if table is not None:
        model.set_input_embeddings(table)
        model.set_output_embeddings(table.head())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@lru_cache(maxsize=64)
def _say(line: str) -> None:
    """On stderr, or wherever the program's log goes; each line once in a process."""
    _LOG.warning(line)
