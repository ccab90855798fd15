"""Confidence intervals of a mean score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964  # of 95 %
RESAMPLES = 2000


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean: Wilson's where every score is 0 or 1, else a bootstrap
    (percentiles, seeded).
    """
    return _wilson(scores) if all(score in (0.0, 1.0) for score in scores) else _bootstrap(scores)


def _wilson(scores: Sequence[float]) -> tuple[float, float]:
    """Of a share (Wilson 1927); it is not empty at 0 and 1."""
    count, share = len(scores), sum(scores) / len(scores)
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _bootstrap(scores: Sequence[float]) -> tuple[float, float]:
    values = np.asarray(scores)
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)
