"""Managed layers as named tensors and text, and back: what a saved document consists of.

Names are `layer.sequence.column`; numbers go into one JSON string. Knows nothing of files, models'
names or texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from torch import Tensor

from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.window import Rows
from namm_llm.config import CacheConfig
from namm_llm.config.header import config_to_dict
from namm_llm.errors import CacheError
from namm_llm.tokens import RaggedTokens

_NUMBERS = ("scale", "seen", "compacted_at", "updates")


def layers_state(layers: Sequence[ManagedLayer]) -> tuple[dict[str, Tensor], str]:
    """Contiguous tensors and a JSON text that `fill_layers` makes the same layers of."""
    tensors: dict[str, Tensor] = {}
    numbers = []
    for index, layer in enumerate(layers):
        rows = []
        for row, sequence in enumerate(layer.sequences):
            tensors.update(
                {f"{index}.{row}.{name}": tensor for name, tensor in _columns(sequence).items()}
            )
            rows.append(
                {
                    "lengths": sequence.retained.lengths,
                    **{name: getattr(sequence, name) for name in _NUMBERS},
                }
            )
        numbers.append({"columns": layer.columns, "sequences": rows})
    return tensors, json.dumps(numbers)


def fill_layers(
    layers: Sequence[ManagedLayer], tensors: Mapping[str, Tensor], numbers: str
) -> None:
    """Fill empty layers with a saved state. Raises CacheError if it does not fit them."""
    try:
        for index, (layer, saved) in enumerate(zip(layers, json.loads(numbers), strict=True)):
            layer.columns = saved["columns"]
            rows = zip(layer.evictions_of(len(saved["sequences"])), saved["sequences"], strict=True)
            layer.sequences = [
                _sequence(f"{index}.{row}.", eviction, own, tensors)
                for row, (eviction, own) in enumerate(rows)
            ]
            layer.is_initialized = True
    except (KeyError, ValueError, TypeError) as error:
        raise CacheError(f"the saved cache is damaged or of another model: {error}") from error


def check_settings(saved: str, eviction: CacheConfig) -> None:
    """CacheError if what was saved, the JSON text of `config_to_dict`, is not `eviction`. What it does
    not name has its default.
    """
    try:
        was = json.loads(saved)
    except ValueError as error:
        raise CacheError(
            "the saved cache does not say with which settings it was read; read its text again"
        ) from error
    now = json.loads(json.dumps(config_to_dict(eviction)))  # a tuple comes back as a list
    if other := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
        pairs = (f"{name} {was.get(name)}, not {now.get(name)}" for name in other)
        raise CacheError(
            f"the cache was saved with {'; '.join(pairs)}: load it with these settings"
        )


def _columns(sequence: LayerSequence) -> dict[str, Tensor]:
    columns = dict(sequence.retained.tensors())
    for name, rows in (("window", sequence.window), ("queries", sequence.queries)):
        columns.update(
            {f"{name}.{i}": column.contiguous() for i, column in enumerate(rows.columns())}
        )
    return columns


def _sequence(
    prefix: str, eviction: CacheConfig, numbers: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> LayerSequence:
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    lengths = numbers["lengths"]
    assert isinstance(lengths, list)
    columns = {name: tensor for name, tensor in own.items() if "." not in name}
    retained = RaggedTokens(**columns, lengths=tuple(lengths))
    if sum(lengths) != len(retained.positions):
        raise ValueError("tokens are missing")
    parts = [
        Rows(*(own[name] for name in (f"{part}.0", f"{part}.1") if name in own))
        for part in ("window", "queries")
    ]
    return LayerSequence(
        eviction,
        retained,
        window=parts[0],
        queries=parts[1],
        **{name: numbers[name] for name in _NUMBERS},
    )  # type: ignore[arg-type]
