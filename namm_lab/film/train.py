"""Training from nothing: films of one scene first, then of more scenes, then of more frames.

Without the curriculum the model stays at chance. The seed fixes everything; a run that was stopped
begins again, since it takes minutes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from namm_lab.film.model import BOS, DEVIATION, END, IMAGE, MEAN, TOKENS, WORDS, build_model, save
from namm_lab.film.pictures import NAMES, Film, film

SCENES, FRAMES = 7, 32  # of the last level, which evaluation takes too
_COLOURS = torch.tensor([WORDS.index(name) for name in NAMES])
_RIGHT = (0.9, 0.75)  # share of right answers that ends the first level, and each later one
_LEAST = 40  # steps of a level


@dataclass(frozen=True)
class Recipe:
    """How long, and how fast."""

    steps: int = 2000
    batch: int = 16
    rate: float = 1.5e-3
    seed: int = 0


@dataclass
class Level:
    """How hard films are: scenes, then frames."""

    scenes: int = 1
    frames: int = 4
    right: float = 0.0
    """Running share of right answers."""
    steps: int = 0

    @property
    def is_last(self) -> bool:
        """Whether films become no harder."""
        return self.scenes == SCENES and self.frames == FRAMES

    def take(self, right: float) -> None:
        """One more step with so many right answers; the next level if that is enough."""
        self.right, self.steps = 0.95 * self.right + 0.05 * right, self.steps + 1
        if self.is_last or self.right < _RIGHT[self.scenes > 1] or self.steps < _LEAST:
            return
        if self.scenes < SCENES:
            self.scenes, self.frames = self.scenes + 1, min(self.frames + 2, FRAMES)
        else:
            self.frames = min(self.frames + 4, FRAMES)
        self.right, self.steps = 0.0, 0


def batch_of(films: list[Film], random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Ids `[B, T]`: the film, then each of its colours with its answer, in any order; and pixels
    `[B F, 3, SIZE, SIZE]`.
    """
    rows = []
    for one in films:
        row = [BOS, *[IMAGE] * (TOKENS * len(one.frames))]
        for scene in random.permutation(len(one.digits)):
            colour = WORDS.index(NAMES[one.colours[scene]])
            digit = WORDS.index(str(one.digits[scene]))
            row += [colour, digit, END]
        rows.append(row)
    pixels = torch.from_numpy(np.concatenate([one.frames for one in films])).float() / 255
    return torch.tensor(rows), ((pixels - MEAN) / DEVIATION).permute(0, 3, 1, 2)


def loss_of(
    model: LlavaForConditionalGeneration, ids: Tensor, pixels: Tensor
) -> tuple[Tensor, float]:
    """The loss of digits and of what ends them, and the share of right digits."""
    asked = torch.isin(ids, _COLOURS).nonzero()[:, 1].view(len(ids), -1)  # where answers begin
    logits = model(input_ids=ids, pixel_values=pixels, use_cache=False).logits
    at = torch.cat([asked, asked + 1], 1)
    picked = logits.gather(1, at[..., None].expand(-1, -1, logits.shape[-1]))
    targets = ids.gather(1, at + 1)
    right = (picked.argmax(-1) == targets)[:, : asked.shape[1]].float().mean()
    return cross_entropy(picked.flatten(0, 1), targets.flatten()), float(right)


def train(folder: Path, recipe: Recipe | None = None) -> None:
    """Train and save; a line of the log every hundred steps."""
    recipe = recipe or Recipe()
    model, began = build_model(recipe.seed).train(), time.perf_counter()
    random, level = np.random.default_rng(recipe.seed), Level()
    optimizer = torch.optim.AdamW(model.parameters(), recipe.rate, (0.9, 0.98), weight_decay=0.01)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("w") as log:
        for step in range(recipe.steps):
            warm, left = (step + 1) / 100, (recipe.steps - step) / (0.25 * recipe.steps)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * min(1.0, warm, left)
            frames = int(random.integers(max(level.scenes, level.frames // 2), level.frames + 1))
            films = [film(frames, level.scenes, random) for _ in range(recipe.batch)]
            loss, right = loss_of(model, *batch_of(films, random))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 100 == 0 or step + 1 == recipe.steps:
                row: dict[str, float] = {
                    "step": step,
                    "scenes": level.scenes,
                    "frames": level.frames,
                }
                row |= {"loss": round(float(loss.detach()), 4), "right": round(level.right, 3)}
                row |= {"seconds": round(time.perf_counter() - began)}
                row |= {"cpu_seconds": round(time.process_time())}
                log.write(json.dumps(row) + "\n")
                log.flush()
            level.take(right)
    save(model.eval(), folder)
