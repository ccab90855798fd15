"""A cache's layers as named tensors and text, and back: the contents of a saved document.

Names are `layer.sequence.column`; numbers go into one JSON string. Knows nothing of files, models'
names or texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from namm_llm.cache.batch import BatchLayer
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.sliding import SlidingLayer, SlidingSequence
from namm_llm.cache.window import GrowingBuffer
from namm_llm.config import CacheConfig
from namm_llm.config.header import config_to_dict
from namm_llm.errors import CacheError
from namm_llm.tokens import RaggedTokens

_NUMBERS = ("scale", "seen", "compacted_at", "eviction_steps", "window_start")
_BUFFERS = ("window", "queries")
_SLIDING_NUMBERS = ("scale", "seen")


def layers_state(layers: Sequence[BatchLayer]) -> tuple[dict[str, Tensor], str]:
    """Contiguous tensors and a JSON text that `fill_layers` makes the same layers of."""
    tensors: dict[str, Tensor] = {}
    numbers = []
    for index, layer in enumerate(layers):
        for row, sequence in enumerate(layer.sequences):
            columns = _columns(sequence).items()
            tensors.update({f"{index}.{row}.{name}": each for name, each in columns})
        rows = [_numbers(sequence) for sequence in layer.sequences]
        numbers.append({"columns": layer.columns, "sequences": rows})
    return tensors, json.dumps(numbers)


def fill_layers(
    layers: Sequence[BatchLayer],
    tensors: Mapping[str, Tensor],
    numbers: str,
    devices: Mapping[int, torch.device],
) -> None:
    """Fill empty layers with a saved state, each on its device. Raises CacheError if it does not
    fit them.
    """
    try:
        for index, (layer, saved) in enumerate(zip(layers, json.loads(numbers), strict=True)):
            _fill(layer, f"{index}.", tensors, saved)
            layer.place(devices[index])
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(f"the saved cache is damaged or of another model: {error}") from error


def _fill(
    layer: BatchLayer, prefix: str, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> None:
    layer.columns = saved["columns"]
    layer.sequences = []
    configs = layer.configs_of(len(saved["sequences"]))
    for row, (config, numbers) in enumerate(zip(configs, saved["sequences"], strict=True)):
        start = f"{prefix}{row}."
        own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        if isinstance(layer, SlidingLayer):
            layer.sequences.append(_sliding_sequence(layer, config, numbers, own))
        else:
            layer.sequences.append(_sequence(config, numbers, own))
    layer.is_initialized = bool(layer.sequences)


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


def _columns(sequence: LayerSequence | SlidingSequence) -> dict[str, Tensor]:
    if isinstance(sequence, SlidingSequence):
        kept = {"keys": sequence.keys, "values": sequence.values}
        return {name: column.contiguous() for name, column in kept.items()}
    columns = dict(sequence.retained.columns())
    for part in _BUFFERS:
        for number, column in enumerate(getattr(sequence, part).columns()):
            columns[f"{part}.{number}"] = column.contiguous()
    return columns


def _numbers(sequence: LayerSequence | SlidingSequence) -> dict[str, Any]:
    if isinstance(sequence, SlidingSequence):
        return {name: getattr(sequence, name) for name in _SLIDING_NUMBERS}
    numbers = {name: getattr(sequence, name) for name in _NUMBERS}
    return {"lengths": sequence.retained.lengths, **numbers}


def _sequence(
    config: CacheConfig, numbers: Mapping[str, Any], own: Mapping[str, Tensor]
) -> LayerSequence:
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


def _sliding_sequence(
    layer: SlidingLayer, config: CacheConfig, numbers: Mapping[str, Any], own: Mapping[str, Tensor]
) -> SlidingSequence:
    sequence = layer.new_sequence(config, own["keys"], numbers["scale"])
    sequence.keys, sequence.values, sequence.seen = own["keys"], own["values"], numbers["seen"]
    held = min(sequence.seen, layer.size - 1)
    if sequence.keys.shape[1] != held or sequence.values.shape[1] != held:
        raise ValueError("tokens of a sliding window are missing")
    return sequence
