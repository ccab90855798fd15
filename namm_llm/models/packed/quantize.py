"""Float weights to 4 or 8 bits, in groups of 32 columns."""

from __future__ import annotations

import torch
from torch import Tensor

from namm_llm.models.packed.formats import Fields, Format

_GROUP = 32
_ROWS = 4096
"""Rows at a time: temporaries take several times their memory."""
_SHRINKS = tuple(1 - step / 20 for step in range(9))
"""Parts of a group's range that are tried: 1 to 0.6."""


def quantise(weight: Tensor, format: Format) -> Fields:
    """Codes, scales and minima of a float matrix [rows, columns]; columns a multiple of 32.

    Q8_0: the largest number of a group is 127. Q4_1: of several parts of the group's range the one
    with the smallest squared error, scale and minimum then fitted to the codes by least squares.
    """
    codes, scales, lows = [], [], []
    fit = _fit_8 if format.bits == 8 else _fit_4
    for start in range(0, len(weight), _ROWS):
        rows = weight[start : start + _ROWS]
        groups = rows.float().reshape(len(rows), -1, _GROUP)
        code, scale, low = fit(groups)
        codes.append(code.to(torch.uint8).flatten(1))
        scales.append(scale)
        lows.append(low)
    return Fields(
        format=format,
        codes=torch.cat(codes),
        scale=torch.cat(scales),
        low=torch.cat(lows) if format.has_low else None,
    )


def _fit_8(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = (groups.abs().amax(-1) / 127).half()
    codes = (groups * _inverse(scale)).round().clamp(-127, 127) + 128
    return codes, scale, scale


def _fit_4(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = groups.aminmax(dim=-1)
    middle, half = (low + high) / 2, (high - low) / 2
    best_error = torch.full_like(low, torch.inf)
    best = (torch.zeros_like(groups), low.half(), low.half())
    for shrink in _SHRINKS:
        scale, start = (half * shrink * 2 / 15).half(), (middle - half * shrink).half()
        codes = _codes(groups, scale, start)
        scale, start = _least_squares(groups, codes, scale, start)
        codes = _codes(groups, scale, start)
        found = codes * scale.float().unsqueeze(-1) + start.float().unsqueeze(-1)
        error = (found - groups).square().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = (
            torch.where(better.unsqueeze(-1), codes, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, start, best[2]),
        )
    return best


def _codes(groups: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    return ((groups - low.float().unsqueeze(-1)) * _inverse(scale)).round().clamp(0, 15)


def _least_squares(
    groups: Tensor, codes: Tensor, scale: Tensor, low: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and minimum that fit the codes best; the given ones where all codes are the same."""
    code_mean, mean = codes.mean(-1), groups.mean(-1)
    spread = codes - code_mean.unsqueeze(-1)
    variance = spread.square().sum(-1)
    fitted = (spread * groups).sum(-1) / variance.clamp(min=1e-9)
    usable = (variance > 0) & (fitted > 0)
    fitted_low = (mean - fitted * code_mean).half()
    return torch.where(usable, fitted.half(), scale), torch.where(usable, fitted_low, low)


def _inverse(scale: Tensor) -> Tensor:
    """1 / scale [..., 1]; 0 where the scale is 0."""
    found = scale.float().unsqueeze(-1)
    return torch.where(found > 0, 1 / found, 0)
