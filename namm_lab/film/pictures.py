"""Pictures of digits, drawn stroke by stroke: no data set, and each is a drawing of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 16  # pixels
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 220, 40),
    "cyan": (60, 220, 230),
    "magenta": (230, 60, 220),
    "orange": (245, 140, 30),
    "purple": (110, 30, 150),
    "grey": (130, 130, 130),
    "brown": (115, 70, 30),
}
NAMES = tuple(COLOURS)
# strokes of each digit, as points x, y from the upper left corner of a square of side 1
_STROKES: tuple[tuple[tuple[float, ...], ...], ...] = (
    ((0.5, 0.0, 0.1, 0.25, 0.1, 0.75, 0.5, 1.0, 0.9, 0.75, 0.9, 0.25, 0.5, 0.0),),
    ((0.25, 0.25, 0.55, 0.0, 0.55, 1.0),),
    ((0.1, 0.25, 0.35, 0.0, 0.8, 0.1, 0.8, 0.4, 0.1, 1.0, 0.9, 1.0),),
    ((0.1, 0.0, 0.85, 0.0, 0.4, 0.4, 0.85, 0.65, 0.75, 0.95, 0.1, 0.95),),
    ((0.6, 0.0, 0.05, 0.65, 0.95, 0.65), (0.65, 0.35, 0.65, 1.0)),
    ((0.85, 0.0, 0.15, 0.0, 0.15, 0.45, 0.7, 0.45, 0.85, 0.7, 0.65, 1.0, 0.1, 0.95),),
    ((0.75, 0.0, 0.25, 0.4, 0.1, 0.75, 0.4, 1.0, 0.85, 0.8, 0.75, 0.5, 0.2, 0.6),),
    ((0.1, 0.0, 0.9, 0.0, 0.4, 1.0),),
    (
        (0.5, 0.45, 0.2, 0.25, 0.5, 0.0, 0.8, 0.25, 0.5, 0.45, 0.1, 0.75, 0.5, 1.0),
        (0.5, 1.0, 0.9, 0.75, 0.5, 0.45),
    ),
    ((0.85, 0.35, 0.5, 0.5, 0.15, 0.3, 0.4, 0.0, 0.85, 0.1, 0.85, 0.35, 0.75, 1.0),),
)
# x, y of each pixel
_AT = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).reshape(-1, 2).astype(float)
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Film:
    """Frames in scenes: one picture each, with fresh noise in every frame."""

    frames: Pixels
    """`[F, SIZE, SIZE, 3]`."""
    lengths: tuple[int, ...]
    """Frames of each scene."""
    colours: tuple[int, ...]
    """Of each scene, all different, as places in `NAMES`."""
    digits: tuple[int, ...]

    @property
    def answers(self) -> dict[str, int]:
        """The digit on each colour."""
        return {
            NAMES[colour]: digit for colour, digit in zip(self.colours, self.digits, strict=True)
        }


def draw(digit: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Ink at each pixel, 0 to 1, `[SIZE, SIZE]`: points are moved, turned, slanted and scaled."""
    angle, slant = random.normal(0, 0.08, 2)
    scale = random.uniform(0.6, 0.75, 2) * SIZE
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.array([[1.0, slant], [0.0, 1.0]]) @ np.diag(scale)
    centre = (SIZE - 1) / 2 + random.normal(0, 0.4, 2)
    lines = []
    for stroke in _STROKES[digit]:
        points = np.array(stroke).reshape(-1, 2) - 0.5
        points = (points + random.normal(0, 0.025, points.shape)) @ turn.T + centre
        lines += [(points[:-1], points[1:])]
    starts, stops = (np.concatenate(ends)[:, None] for ends in zip(*lines, strict=True))
    along = stops - starts  # `[lines, 1, 2]`
    share = ((_AT - starts) * along).sum(-1) / (along * along).sum(-1)
    away = _AT - starts - share.clip(0, 1)[..., None] * along
    nearest = np.sqrt((away * away).sum(-1).min(0)).reshape(SIZE, SIZE)
    ink: NDArray[np.float64] = (1.5 - nearest / random.uniform(0.7, 1.1)).clip(0, 1)
    return ink


def picture(digit: int, colour: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A digit on a colour, 0 to 255, `[SIZE, SIZE, 3]`."""
    ground = np.array(COLOURS[NAMES[colour]], dtype=float)
    ink = draw(digit, random)[..., None]
    return ground * (1 - ink) + (255.0 if ground.mean() < 140 else 0.0) * ink


def film(frames: int, scenes: int, random: np.random.Generator, noise: float = 12.0) -> Film:
    """A film of so many frames; scenes differ much in their lengths."""
    share = random.dirichlet(np.full(scenes, 1.5))
    lengths = 1 + random.multinomial(frames - scenes, share)
    colours, digits = random.permutation(len(NAMES))[:scenes], random.integers(0, 10, scenes)
    stills = [picture(*pair, random) for pair in zip(digits, colours, strict=True)]
    moving = np.repeat(np.stack(stills), lengths, axis=0)
    moving = moving + random.normal(0, noise, moving.shape)
    return Film(
        moving.round().clip(0, 255).astype(np.uint8),
        tuple(map(int, lengths)),
        tuple(map(int, colours)),
        tuple(map(int, digits)),
    )
