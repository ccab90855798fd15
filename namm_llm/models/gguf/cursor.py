"""A read position in the bytes of a GGUF file, which never reads past their end.

Source: the GGUF specification, version 3 (ggml, docs/gguf.md). All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from namm_llm.errors import ModelError

_Numbers = np.ndarray[Any, np.dtype[Any]]
MetadataValue = int | float | bool | str | list[str] | _Numbers
"""One metadata value: a scalar, a list of strings, or an array of numbers or booleans."""

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_BOOL: Final = 7
_MAX_STRING_BYTES: Final = 1 << 26  # a chat template takes kilobytes
_MAX_ELEMENTS: Final = 1 << 21  # the largest vocabularies have some 2**18 tokens and 2**19 merges
_LENGTH = struct.Struct("<Q")


class Cursor:
    """Reads numbers, strings and arrays one behind the other.

    Every method raises ModelError where the bytes end or a length is absurd.
    """

    def __init__(self, buffer: memoryview, name: str) -> None:
        self._buffer = buffer
        self._name = name
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._buffer) - self.position

    def damaged(self, what: str) -> ModelError:
        """The error for bytes that no program writes, with where they are."""
        return ModelError(
            f"{self._name} is damaged or cut short: {what} (byte {self.position} of "
            f"{len(self._buffer)}). Copy or download it again."
        )

    def take(self, nbytes: int, what: str) -> memoryview:
        """The next bytes. ModelError if there are fewer."""
        if nbytes > self.left:
            raise self.damaged(f"{what} takes {nbytes} bytes and {self.left} are left")
        part = self._buffer[self.position : self.position + nbytes]
        self.position += nbytes
        return part

    def integer(self, code: str, what: str) -> int:
        """One number in a `struct` code, such as I or Q."""
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))
        return int(value)

    def count(self, what: str, least_bytes: int, most: int = _MAX_ELEMENTS) -> int:
        """A number of elements of at least `least_bytes` each, which the file can hold."""
        number = self.integer("Q", what)
        if number > most or number * least_bytes > self.left:
            raise self.damaged(f"{what} is {number}")
        return number

    def text(self, what: str) -> str:
        """One string: its length, then UTF-8."""
        length = self.integer("Q", what)
        if length > _MAX_STRING_BYTES:
            raise self.damaged(f"{what} takes {length} bytes")
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"{what} is not UTF-8") from None

    def value(self, key: str) -> MetadataValue:
        """One metadata value: its type, then itself."""
        kind = self.integer("I", f"the type of {key}")
        if kind == _STRING:
            return self.text(key)
        if kind == _ARRAY:
            return self._array(key)
        number = self._numbers(kind, 1, key)[0]
        return bool(number) if kind == _BOOL else plain_scalar(number)

    def _array(self, key: str) -> MetadataValue:
        kind = self.integer("I", f"the element type of {key}")
        if kind == _STRING:
            return self._strings(self.count(f"the length of {key}", _LENGTH.size), key)
        if kind not in _SCALARS:
            raise self.damaged(f"{key} is an array of type {kind}")
        width = np.dtype(_SCALARS[kind]).itemsize
        return self._numbers(kind, self.count(f"the length of {key}", width), key)

    def _numbers(self, kind: int, count: int, key: str) -> _Numbers:
        if kind not in _SCALARS:
            raise self.damaged(f"{key} has the unknown type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        # copied: a view would keep the whole file mapped
        numbers: _Numbers = np.frombuffer(self.take(count * dtype.itemsize, key), dtype).copy()
        if kind == _BOOL:
            if numbers.size and numbers.max() > 1:
                raise self.damaged(f"{key} is neither true nor false")
            return numbers.astype(np.bool_)
        return numbers

    def _strings(self, count: int, key: str) -> list[str]:
        """Where a large file spends its time, so lengths are read without a call each."""
        buffer, at, end = self._buffer, self.position, len(self._buffer)
        found: list[str] = []
        append: Callable[[str], None] = found.append
        read, width = _LENGTH.unpack_from, _LENGTH.size
        try:
            for _ in range(count):
                start = at + width
                at = start + read(buffer, at)[0]
                if at > end:
                    raise self.damaged(f"string {len(found)} of {key} takes {at - start} bytes")
                append(str(buffer[start:at], "utf-8"))
        except struct.error:
            raise self.damaged(f"{key} ends after {len(found)} of {count} strings") from None
        except UnicodeDecodeError:
            raise self.damaged(f"string {len(found)} of {key} is not UTF-8") from None
        self.position = at
        return found


def plain_scalar(number: np.generic) -> int | float:
    """The number as Python's own; of a float32 the shortest decimal, so that 1e-5 stays 1e-5."""
    if isinstance(number, np.float32):
        return float(str(number))
    value = number.item()
    return value if isinstance(value, float) else int(value)
