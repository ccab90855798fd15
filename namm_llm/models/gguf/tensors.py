"""Which tensor of a GGUF file becomes which weight of a transformers model, and what is done to it.

Rows of packed blocks are only moved, never unpacked: llama.cpp stores the rows of q and k in
another order, and some files hold q, k and v as one tensor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from namm_llm.errors import ModelError
from namm_llm.models.gguf.architectures import TOP_LEVEL, Architecture
from namm_llm.models.gguf.blocks import FORMATS_BY_NAME, dequantize, has_finite_scales
from namm_llm.models.gguf.file import GgufFile
from namm_llm.models.gguf.rope import FREQUENCY_FACTORS, LONG_FACTORS, SHORT_FACTORS

_LAYER_NAME: Final = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TOP_NAME: Final = re.compile(r"(\w+)\.(weight|bias)")
_NO_WEIGHTS: Final = re.compile(
    rf"{re.escape(FREQUENCY_FACTORS)}|{re.escape(LONG_FACTORS)}|{re.escape(SHORT_FACTORS)}"
    r"|blk\.\d+\.(rope_freqs|attn_rot_embd)\.weight"
)
_FUSED: Final = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one weight of the model comes from."""

    tensor: str
    """Its name in the file."""
    rows: tuple[int, int] | None = None
    """The part of the tensor's rows; None is all."""
    heads: int | None = None
    """Heads whose rows are put from pairs back into halves; None leaves the order."""
    offset: float = 0.0
    """What the file added to it."""


def plan_weights(
    file: GgufFile, architecture: Architecture, config: PreTrainedConfig
) -> dict[str, Source]:
    """By the weight's name in transformers. ModelError for a tensor that it has no place for."""
    plan: dict[str, Source] = {}
    unknown: list[str] = []
    for name in file.tensors:
        if _NO_WEIGHTS.fullmatch(name):
            continue
        found = _sources(name, architecture, config)
        if not found:
            unknown.append(name)
        plan.update(found)
    if unknown:
        raise ModelError(
            f"{file.path} holds {len(unknown)} tensors that no {architecture.name} of transformers "
            f"has, first {unknown[0][:60]}; it cannot be loaded."
        )
    return plan


def _sources(name: str, architecture: Architecture, config: PreTrainedConfig) -> dict[str, Source]:
    """The weights that one tensor holds: mostly one."""
    if match := _TOP_NAME.fullmatch(name):
        part, kind = match.groups()
        if part not in TOP_LEVEL:
            return {}
        offset = architecture.norm_offset if part.endswith("norm") else 0.0
        return {f"{TOP_LEVEL[part]}.{kind}": Source(tensor=name, offset=offset)}
    match = _LAYER_NAME.fullmatch(name)
    if match is None:
        return {}
    number, part, kind = match.groups()
    scope = f"model.layers.{int(number)}."
    if part == "attn_qkv" and part not in architecture.layer:
        return _split(name, kind, scope, architecture, config)
    if part not in architecture.layer:
        return {}
    source = Source(
        tensor=name,
        heads=_heads_of(part, architecture, config),
        offset=architecture.norm_offset if part.endswith("norm") else 0.0,
    )
    return {f"{scope}{architecture.layer[part]}.{kind}": source}


def _heads_of(part: str, architecture: Architecture, config: PreTrainedConfig) -> int | None:
    """Heads of q or k whose rows were stored in pairs."""
    if not architecture.permuted:
        return None
    return {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(part)


def _split(
    name: str, kind: str, scope: str, architecture: Architecture, config: PreTrainedConfig
) -> dict[str, Source]:
    """q, k and v out of one tensor."""
    counts = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    found, start = {}, 0
    for part, count in zip(_FUSED, counts, strict=True):
        stop = start + count * config.head_dim
        source = Source(
            tensor=name, rows=(start, stop), heads=_heads_of(part, architecture, config)
        )
        found[f"{scope}{architecture.layer[part]}.{kind}"] = source
        start = stop
    return found


def shape_of(file: GgufFile, source: Source) -> tuple[int, ...]:
    """Of the weight that comes of it."""
    shape = file.tensors[source.tensor].shape
    if source.rows is None:
        return shape
    start, stop = source.rows
    return (min(stop, shape[0]) - min(start, shape[0]), *shape[1:])


def packed_rows(file: GgufFile, source: Source) -> Tensor:
    """Rows of packed bytes [rows, row_bytes] (uint8) in transformers' order.

    A view of the mapped file where no row moves, a copy elsewhere.

    Raises:
        ModelError: a scale is infinite or not a number.
    """
    raw = file.raw(source.tensor)
    info = file.tensors[source.tensor]
    if len(info.shape) == 1:  # a bias: one row in the file, whose numbers may have to move
        raw = raw.view(-1, FORMATS_BY_NAME[info.type_name].block_bytes)
    if source.rows is not None:
        raw = raw[slice(*source.rows)]
    if not has_finite_scales(raw, info.type_name):
        raise ModelError(
            f"{file.path} is damaged: tensor {info.name} holds infinite weights. Copy or download "
            "it again."
        )
    return raw if source.heads is None else raw[halves_order(raw.shape[0], source.heads)]


def halves_order(rows: int, heads: int) -> Tensor:
    """Where the rows of every head come from: 0, 2, 4, ..., then 1, 3, 5, ... [rows]."""
    return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()


def dense_weight(file: GgufFile, source: Source, dtype: torch.dtype) -> Tensor:
    """The weight, unpacked. ModelError as of `packed_rows`."""
    type_name = file.tensors[source.tensor].type_name
    raw = packed_rows(file, source)
    if source.offset:
        weight = (dequantize(raw, type_name) - source.offset).to(dtype)
    else:
        weight = dequantize(raw, type_name, dtype)
    return weight.reshape(shape_of(file, source))
