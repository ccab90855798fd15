"""A cache's layers as named tensors and text, and back: the contents of a saved document.

Names are `layer.sequence.column`, for a layer with a sliding window `layer.column`; numbers go into
one JSON string. Knows nothing of files, models'
names or texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.window import GrowingBuffer
from namm_llm.config import CacheConfig
from namm_llm.config.header import config_to_dict
from namm_llm.errors import CacheError
from namm_llm.tokens import RaggedTokens

_NUMBERS = ("scale", "seen", "compacted_at", "eviction_steps")
_BUFFERS = ("window", "queries")
_SLIDING = ("keys", "values")  # of a layer with a sliding window


def layers_state(layers: Sequence[Any]) -> tuple[dict[str, Tensor], str]:
    """Contiguous tensors and a JSON text that `fill_layers` makes the same layers of."""
    tensors: dict[str, Tensor] = {}
    numbers = []
    for index, layer in enumerate(layers):
        if isinstance(layer, ManagedLayer):
            for row, sequence in enumerate(layer.sequences):
                prefix = f"{index}.{row}."
                tensors.update({prefix + name: each for name, each in _columns(sequence).items()})
            rows = [
                {"lengths": s.retained.lengths, **{name: getattr(s, name) for name in _NUMBERS}}
                for s in layer.sequences
            ]
            numbers.append({"columns": layer.columns, "sequences": rows})
        else:
            for name in _SLIDING if layer.is_initialized else ():
                tensors[f"{index}.{name}"] = getattr(layer, name).contiguous()
            numbers.append({"columns": layer.cumulative_length})
    return tensors, json.dumps(numbers)


def fill_layers(
    layers: Sequence[Any],
    tensors: Mapping[str, Tensor],
    numbers: str,
    devices: Mapping[int, torch.device],
) -> None:
    """Fill empty layers with a saved state, each on its device. Raises CacheError if it does not
    fit them.
    """
    try:
        for index, (layer, saved) in enumerate(zip(layers, json.loads(numbers), strict=True)):
            if isinstance(layer, ManagedLayer):
                _fill(layer, f"{index}.", tensors, saved)
                layer.place(devices[index])
            elif saved["columns"]:
                keys, values = (tensors[f"{index}.{name}"].to(devices[index]) for name in _SLIDING)
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
                layer.cumulative_length = saved["columns"]
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(f"the saved cache is damaged or of another model: {error}") from error


def _fill(
    layer: ManagedLayer, prefix: str, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> None:
    layer.columns = saved["columns"]
    rows = zip(layer.configs_of(len(saved["sequences"])), saved["sequences"], strict=True)
    layer.sequences = [
        _sequence(f"{prefix}{row}.", config, own, tensors) for row, (config, own) in enumerate(rows)
    ]
    layer.is_initialized = True


def check_settings(saved: str, config: CacheConfig) -> None:
    """Raises CacheError if the saved settings, the JSON text of `config_to_dict`, are not those of
    `config`. A setting that is not named has its default.
    """
    try:
        was = json.loads(saved)
    except ValueError as error:
        raise CacheError(
            "the saved cache does not say with which settings it was read; read its text again."
        ) from error
    now = json.loads(json.dumps(config_to_dict(config)))  # a tuple comes back as a list
    if other := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
        pairs = (f"{name} {was.get(name)}, not {now.get(name)}" for name in other)
        raise CacheError(
            f"the cache was saved with {'; '.join(pairs)}: load it with these settings."
        )


def _columns(sequence: LayerSequence) -> dict[str, Tensor]:
    columns = dict(sequence.retained.columns())
    for part in _BUFFERS:
        for number, column in enumerate(getattr(sequence, part).columns()):
            columns[f"{part}.{number}"] = column.contiguous()
    return columns


def _sequence(
    prefix: str, config: CacheConfig, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> LayerSequence:
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    columns = {name: tensor for name, tensor in own.items() if "." not in name}
    retained = RaggedTokens(**columns, lengths=tuple(numbers["lengths"]))
    if sum(retained.lengths) != len(retained.positions):
        raise ValueError("tokens are missing")
    window, queries = (
        GrowingBuffer(*(own[name] for name in (f"{part}.0", f"{part}.1") if name in own))
        for part in _BUFFERS
    )
    own_numbers = {name: numbers[name] for name in _NUMBERS}
    return LayerSequence(config, retained, window=window, queries=queries, **own_numbers)
