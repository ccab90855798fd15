"""The metadata of a GGUF file, asked for by key and kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from namm_llm.errors import ModelError
from namm_llm.models.gguf.cursor import MetadataValue

_Array = np.ndarray[Any, np.dtype[Any]]


class Metadata(Mapping[str, MetadataValue]):
    """Keys and values of one file.

    A value of another kind than asked for is a ModelError that names its key.
    """

    def __init__(self, values: dict[str, MetadataValue], name: str) -> None:
        self._values = values
        self._name = name

    def __getitem__(self, key: str) -> MetadataValue:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def integer(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number of at least `least` and below 2**31.

        Raises:
            ModelError: it is another number, or missing without a default.
        """
        value = self._values.get(key, default)
        if value is None:
            raise self._missing(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 31:
            raise self._wrong(key, value, f"a whole number from {least} to 2147483647")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero. ModelError if it is missing and has no default."""
        value = self._values.get(key, default)
        if value is None:
            raise self._missing(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, value, "a number")
        if not math.isfinite(value) or value <= 0:
            raise self._wrong(key, value, "a number above zero")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string. ModelError if it is missing and has no default."""
        value = self._values.get(key, default)
        if value is None:
            raise self._missing(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings; empty if the key is missing."""
        value = self._values.get(key, [])
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list of strings")
        return value

    def numbers(self, key: str) -> _Array:
        """An array of numbers; empty if the key is missing."""
        value = self._values.get(key)
        if value is None:
            return np.zeros(0)
        if not isinstance(value, np.ndarray):
            raise self._wrong(key, value, "an array of numbers")
        return value

    def _missing(self, key: str) -> ModelError:
        return ModelError(f"{self._name} lacks {key}, so it does not describe a whole model.")

    def _wrong(self, key: str, value: MetadataValue | None, wanted: str) -> ModelError:
        shown = f"{len(value)} values" if isinstance(value, (list, np.ndarray)) else repr(value)
        return ModelError(f"{self._name} says {key} = {shown[:60]}, which is not {wanted}.")
