"""The training loop: a curriculum by accuracy, a budget of minutes, checkpoints and a log of JSON
lines.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from namm_lab.tiny.batches import Batch, collate, text_batch
from namm_lab.tiny.curriculum import Stage, Task, draw_task
from namm_lab.tiny.documents import World
from namm_lab.tiny.model import POSITIONS

MATRIX_RATE, OTHER_RATE = 1.5e-3, 4e-4
"""Muon's and AdamW's learning rates; larger ones break the circuits that the model starts with."""
WARM_UP = 60
LANGUAGE_LOSS = 0.3
LANGUAGE_BATCH, LANGUAGE_LENGTH = 5, 256
LONGEST_STEP = 20.0
"""Seconds that a step may count at most: a process that was stopped for a while did not train."""


@dataclass
class Progress:
    """What a run remembers beside weights and optimizers."""

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    runs: list[dict[str, Any]] = field(default_factory=list)


class Log:
    """JSON lines, each flushed: a run that is killed has a log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        line = json.dumps(
            {"event": event, "time": time.strftime("%H:%M:%S", time.gmtime()), **values}
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    inner = [p for p in model.model.layers.parameters() if p.ndim == 2]
    matrices = {id(p) for p in inner}
    others = [p for p in model.parameters() if id(p) not in matrices]
    return [
        torch.optim.Muon(inner, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=OTHER_RATE, weight_decay=0.01, betas=(0.9, 0.95)),
    ]


def batch_loss(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean weighted loss, and whether each look-up was right.

    Logits are made only where something is to be learned. The mask of ones keeps transformers from
    taking position jumps for the borders of packed sequences.
    """
    mask = torch.ones_like(batch.ids)
    with torch.autocast(batch.ids.device.type, torch.bfloat16):
        states = model.model(batch.ids, mask, batch.positions, use_cache=False).last_hidden_state
        wanted = batch.loss[:, 1:] > 0
        logits = model.lm_head(states[:, :-1][wanted]).float()
    targets, weights = batch.ids[:, 1:][wanted], batch.loss[:, 1:][wanted]
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    heads = batch.heads[:, 1:][wanted]
    right = logits[heads].argmax(-1) == targets[heads]
    return (losses * weights).sum() / weights.sum(), right


class Trainer:
    """Trains a model through the stages until its minutes are over."""

    def __init__(
        self,
        world: World,
        model: LlamaForCausalLM,
        work: Path,
        minutes: float,
        stages: tuple[Stage, ...],
    ) -> None:
        self.world = world
        self.model, self.work, self.minutes, self.stages = model, work, minutes, stages
        self.device = model.device
        self.optimizers = optimizers(model)
        self.progress = Progress()
        self.log = Log(work / "log.jsonl")
        self.recent: deque[float] = deque(maxlen=30)

    def train(self) -> None:
        """Until the minutes are over, with a checkpoint every three of them."""
        saved = time.monotonic()
        while self.progress.seconds < 60 * self.minutes:
            start = time.monotonic()
            task, batch, text = self.draw()
            self.step(task, batch.to(self.device), text and text.to(self.device))
            self.progress.seconds += min(time.monotonic() - start, LONGEST_STEP)
            if time.monotonic() - saved > 180:
                self.save()
                saved = time.monotonic()
        self.save()

    def draw(self) -> tuple[Task, Batch, Batch | None]:
        """The next step's task and text; seeded by the step, so that a resumed run goes on where it
        was.
        """
        rng = random.Random(self.progress.step * 1_000_003 + len(self.progress.runs))
        task = draw_task(rng, self.progress.stage, self.stages)
        examples = [task.make(rng, self.world, task.length) for _ in range(task.batch)]
        batch = collate(rng, examples, self.world.encode.pad, POSITIONS)
        if not self.stages[self.progress.stage].language:
            return task, batch, None
        corpora = rng.choices((self.world.prose, self.world.code), (3, 2), k=LANGUAGE_BATCH)
        windows = [corpus.window(rng, LANGUAGE_LENGTH) for corpus in corpora]
        return task, batch, text_batch(windows, self.world.encode.bos)

    def step(self, task: Task, batch: Batch, text: Batch | None) -> None:
        self.set_rates()
        loss, hits = batch_loss(self.model, batch)
        loss.backward()
        language = None
        if text is not None:
            language, _ = batch_loss(self.model, text)
            (LANGUAGE_LOSS * language).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.account(
            task, batch, text, loss.item(), hits.float().mean().item(), language and language.item()
        )

    def set_rates(self) -> None:
        """A short warm-up, a plateau, and a linear way down over the last 60 % of the minutes."""
        left = 1 - self.progress.seconds / (60 * self.minutes)
        share = min(1.0, (self.progress.step + 1) / WARM_UP, max(0.02, left / 0.6))
        for optimizer, rate in zip(self.optimizers, (MATRIX_RATE, OTHER_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def account(
        self,
        task: Task,
        batch: Batch,
        text: Batch | None,
        loss: float,
        accuracy: float,
        language: float | None,
    ) -> None:
        progress, stage = self.progress, self.stages[self.progress.stage]
        progress.step += 1
        progress.stage_step += 1
        progress.tokens += batch.ids.numel() + (text.ids.numel() if text is not None else 0)
        if task in stage.tasks:
            self.recent.append(accuracy)
        if progress.step % 5 == 0:
            self.log.write(
                "step", step=progress.step, stage=stage.name, task=task.name, loss=round(loss, 4),
                accuracy=round(accuracy, 3),
                running=round(sum(self.recent) / max(1, len(self.recent)), 3),
                language=language and round(language, 3), tokens=progress.tokens,
                seconds=round(progress.seconds),
                rate=round(self.optimizers[0].param_groups[0]["lr"], 6),
            )  # fmt: skip
        full = len(self.recent) == self.recent.maxlen
        passed = full and sum(self.recent) / len(self.recent) >= stage.until
        if passed or progress.stage_step >= stage.steps:
            self.log.write("stage over", stage=stage.name, passed=passed, step=progress.step)
            progress.stage, progress.stage_step = progress.stage + 1, 0
            self.recent.clear()

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then swaps."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        torch.save(state, self.work / "checkpoint.new")
        (self.work / "checkpoint.new").replace(self.work / "checkpoint.pt")
        self.log.write("saved", step=self.progress.step)

    def resume(self) -> None:
        path = self.work / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.progress = Progress(**state["progress"])
        run = {"from_step": self.progress.step, "minutes": self.minutes}
        self.progress.runs.append(run)
        self.log.write("run", stages=[stage.name for stage in self.stages], **run)
