"""Weights that stay packed in memory: the interface, and the kind for the compiled kernels."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from namm_llm.errors import ModelError
from namm_llm.models.packed import native
from namm_llm.models.packed.binding import Native, Part, Steps, plan_of
from namm_llm.models.packed.formats import FORMATS, Fields, Format, format_of
from namm_llm.models.packed.tiles import TILE, from_tiles, tile_nbytes, to_tiles


class PackedWeights(nn.Module, ABC):
    """A matrix [rows, columns] on the CPU, stored in a few bits a weight. Immutable."""

    rows: int
    """Rows: output features, or tokens of an embedding."""
    columns: int
    """Columns: input features, or the width of an embedding."""
    format_name: str
    """The block format that the weights come from, such as Q4_1."""

    @abstractmethod
    def matmul(self, x: Tensor) -> Tensor:
        """[n, columns] float32 or bfloat16 times the transposed matrix: [n, rows], as typed."""

    @abstractmethod
    def values(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """[stop - start, columns]: the weights of some rows, as they are multiplied."""

    @abstractmethod
    def take(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """[n, columns]: the rows `ids` (int64 [n]). IndexError if one is out of range."""

    def forward(self, x: Tensor) -> Tensor:
        """`matmul`."""
        return self.matmul(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedWeights:
        """As nn.Module does, but the dtypes stay as they are. ModelError off the CPU."""
        for name, buffer in self._buffers.items():
            assert buffer is not None
            changed = fn(buffer)
            if changed.device.type != "cpu":
                raise ModelError(
                    "packed weights stay on the CPU; load the model unpacked for another device."
                )
            self._buffers[name] = changed if changed.dtype is buffer.dtype else buffer
        return self

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.rows}, {self.columns}, {self.format_name}"


class TiledWeights(PackedWeights):
    """Weights for the compiled kernels: tiles of 16 rows, or plain rows of 16-bit floats."""

    tiles: Tensor
    """uint8 [tiles, bytes of a tile], see tiles.py; or [rows, bytes of a row]."""

    def __init__(self, tiles: Tensor, *, name: str, rows: int, columns: int) -> None:
        """name: the block format, or F32, F16, BF16 for plain rows."""
        super().__init__()
        self.rows, self.columns, self.format_name = rows, columns, name
        self.register_buffer("tiles", tiles)

    @classmethod
    def of(cls, fields: Fields) -> TiledWeights:
        """Rearrange the fields of a matrix."""
        rows, columns = fields.codes.shape
        return cls(to_tiles(fields), name=fields.format.name, rows=rows, columns=columns)

    @classmethod
    def of_blocks(cls, raw: Tensor, format: Format, columns: int) -> TiledWeights:
        """Rearrange the blocks of a file, uint8 [rows, bytes]; as `of`, without temporaries."""
        raw = raw if raw.stride(1) == 1 else raw.contiguous()
        count = -(-raw.shape[0] // TILE)
        tiles = torch.empty(count, tile_nbytes(format, columns), dtype=torch.uint8)
        stride, kind, threads = raw.stride(0), format.ggml_type, torch.get_num_threads()
        arguments = (raw.data_ptr(), stride, raw.shape[0], columns, kind, tiles.data_ptr(), threads)
        library().pack(*arguments)
        return cls(tiles, name=format.name, rows=raw.shape[0], columns=columns)

    @classmethod
    def of_rows(cls, values: Tensor) -> TiledWeights:
        """Keep a float matrix [rows, columns] as it is. Memory is shared where it is contiguous."""
        rows, columns = values.shape
        name = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[values.dtype]
        return cls(values.contiguous().view(torch.uint8), name=name, rows=rows, columns=columns)

    @property
    def ggml_type(self) -> int:
        """GGML's number of the format."""
        format = format_of(self.format_name)
        return (
            {"F32": 0, "F16": 1, "BF16": 30}[self.format_name]
            if format is None
            else format.ggml_type
        )

    def matmul(self, x: Tensor) -> Tensor:
        """See PackedWeights. Activations are rounded to 8 bits in groups of 32 columns."""
        plan = plan_of([(self.tiles, None, self.rows, self.ggml_type)], self.columns, Steps())
        return multiply(ctypes.addressof(plan), x, self.columns, self.rows)

    def values(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """See PackedWeights. Exact in float32."""
        start, stop, _ = slice(start, stop).indices(self.rows)
        out = torch.empty(max(stop - start, 0), self.columns, dtype=_float_or_bfloat(dtype))
        part, bfloat = self._part(), out.dtype is torch.bfloat16
        place = (self.columns, start, stop, out.data_ptr())
        check(library().expand(ctypes.byref(part), *place, bfloat, torch.get_num_threads()))
        return out.to(dtype)

    def take(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """See PackedWeights."""
        ids = ids.to("cpu", torch.int64).contiguous()
        out = torch.empty(len(ids), self.columns, dtype=_float_or_bfloat(dtype))
        part, bfloat = self._part(), out.dtype is torch.bfloat16
        arguments = (self.columns, ids.data_ptr(), len(ids), out.data_ptr(), bfloat)
        failed = library().take(ctypes.byref(part), *arguments)
        if failed == 2:
            raise IndexError(f"a row is out of range: there are {self.rows}")
        check(failed)
        return out.to(dtype)

    def halves(self) -> tuple[TiledWeights, TiledWeights] | None:
        """The upper and the lower half of the rows, in the same memory; None if a tile has both."""
        half, tile = self.rows // 2, TILE if self.format_name in FORMATS else 1
        if self.rows % 2 or half % tile:
            return None
        first, second = self.tiles[: half // tile], self.tiles[half // tile :]
        name, columns = self.format_name, self.columns
        return (
            TiledWeights(first, name=name, rows=half, columns=columns),
            TiledWeights(second, name=name, rows=half, columns=columns),
        )

    def fields(self) -> Fields:
        """What the tiles hold. ValueError for plain rows, which have no fields."""
        if self.format_name not in FORMATS:
            raise ValueError(f"weights in {self.format_name} are not quantised")
        return from_tiles(self.tiles, FORMATS[self.format_name], self.rows)

    def _part(self) -> Part:
        return Part(self.tiles.data_ptr(), None, self.rows, self.ggml_type)


def multiply(
    plan: int, x: Tensor, columns: int, rows: int, residual: Tensor | None = None
) -> Tensor:
    """x [..., columns] as a plan (its address) says: [..., rows] in the dtype of x, plus residual.

    Raises ValueError if x or residual has another width, dtype or device, MemoryError if memory is
    short.
    """
    shape, dtype = x.shape, x.dtype
    bfloat = dtype is torch.bfloat16
    if shape[-1] != columns or not x.is_cpu or not (bfloat or dtype is torch.float32):
        raise ValueError(
            f"expected float32 or bfloat16 activations of width {columns} on the CPU, "
            f"not {dtype} {list(shape)} on {x.device}"
        )
    if not x.is_contiguous():
        x = x.contiguous()
    y = torch.empty(*shape[:-1], rows, dtype=dtype)
    added = None
    if residual is not None:
        if residual.shape != y.shape or residual.dtype is not dtype or not residual.is_cpu:
            raise ValueError(
                f"expected a residual {dtype} {list(y.shape)} on the CPU, "
                f"not {residual.dtype} {list(residual.shape)} on {residual.device}"
            )
        residual = residual.contiguous()
        added = residual.data_ptr()
    threads, count = torch.get_num_threads(), x.numel() // columns
    place = (x.data_ptr(), added, y.data_ptr(), count, columns, rows)
    check(library().multiply(plan, *place, bfloat, threads))
    return y


def check(failed: int) -> None:
    """MemoryError if a function of the library returned 1."""
    if failed:
        raise MemoryError("no memory for the activations of a packed product")


def library() -> Native:
    """The compiled kernels. ModelError if there are none."""
    loaded = native.load()
    if isinstance(loaded, str):
        raise ModelError(f"these weights need compiled kernels: {loaded}.")
    return loaded


def _float_or_bfloat(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype is torch.bfloat16 else torch.float32
