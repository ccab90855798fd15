"""The compiled kernels: loaded once, and tried against the plain definition before use."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from namm_llm.models.packed.binding import Native, Steps, bind, plan_of
from namm_llm.models.packed.formats import FORMATS, parse
from namm_llm.models.packed.tiles import TILE, to_tiles
from namm_llm.native import load as load_library

_GROUP = 32
_TOLERANCE = 2e-3
"""Of the largest product: an activation just between two codes may be rounded either way."""


@functools.cache
def load() -> Native | str:
    """The kernels for this CPU, or why there are none."""
    compiled = load_library()
    if isinstance(compiled, str):
        return compiled
    library = bind(compiled)
    wrong = next((name for name in FORMATS if not agrees(library, name)), None)
    return library if wrong is None else f"the compiled kernel for {wrong} gives wrong numbers"


def random_blocks(name: str, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """uint8 [rows, bytes]: blocks of a format with any codes and with scales of some hundredths."""
    format = FORMATS[name]
    shape = (rows, columns // format.block, format.nbytes)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    for at in format.scale_offsets:
        scale = torch.randn(*shape[:2], 1, generator=generator) / 100
        raw[..., at : at + 2] = scale.half().view(torch.uint8)
    return raw.view(rows, -1)


def quantised(x: Tensor) -> Tensor:
    """float64 [rows, columns]: activations as the kernels round them, 8 bits a group of 32."""
    groups = x.float().view(x.shape[0], -1, _GROUP)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scale > 0, 1 / scale, 0)
    return ((groups * inverse).round().double() * scale).view(x.shape)


def agrees(library: Native, name: str) -> bool:
    """Whether packing, expansion and products (of one row, and of more) equal the definition."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = TILE + 3, 512
    raw = random_blocks(name, rows, columns, generator)
    fields = parse(raw, FORMATS[name])
    tiles, wanted, kind = to_tiles(fields), fields.values(), fields.format.ggml_type
    # Wrong to begin with: fresh memory may hold what an earlier trial left, and look right.
    packed, expanded = ~tiles, torch.full((rows, columns), torch.nan)
    plan = plan_of([(tiles, None, rows, kind)], columns, Steps())
    library.pack(raw.data_ptr(), raw.shape[1], rows, columns, kind, packed.data_ptr(), 1)
    library.expand(ctypes.byref(plan.parts[0]), columns, 0, rows, expanded.data_ptr(), 0, 1)
    if not torch.equal(packed, tiles) or not torch.equal(expanded, wanted):
        return False
    for count in (1, 5):
        x = torch.randn(count, columns, generator=generator)
        y = torch.full((count, rows), torch.nan)
        arguments = (x.data_ptr(), None, y.data_ptr(), count, columns, rows, 0, 1)
        library.multiply(ctypes.byref(plan), *arguments)
        right = quantised(x) @ wanted.double().T
        if not (y - right).abs().max() <= right.abs().max() * _TOLERANCE:
            return False
    return True
