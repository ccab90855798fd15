"""`python -m recipes.namm_tiny`: tokenizer, curriculum, scores and model card, in one go; run it again to continue."""

from __future__ import annotations

import argparse
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from recipes.namm_tiny.curriculum import SMOKE_STAGES, STAGES, Stage
from recipes.namm_tiny.data import Data, load_data
from recipes.namm_tiny.evaluate import Examiner, nats
from recipes.namm_tiny.export import export, write_card
from recipes.namm_tiny.model import POSITIONS, build_model
from recipes.namm_tiny.trainer import Trainer


@dataclass(frozen=True)
class Size:
    """How much of everything: of the model, its training and its exam."""

    hidden: int
    layers: int
    modules: int | None
    """Modules of the standard library that are read; all of them when None."""
    stages: tuple[Stage, ...]
    lengths: tuple[int, ...]
    questions: int
    list_lengths: tuple[int, ...]
    lists: int


FULL = Size(320, 4, None, STAGES, (2000, 4000, 8000, 16000), 208, (1000, 2000, 4000), 40)
SMOKE = Size(64, 2, 60, SMOKE_STAGES, (500,), 4, (500,), 1)


def evaluate(folder: Path, data: Data, device: torch.device, size: Size) -> dict[str, Any]:
    """All scores of the exported weights."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    world = data.world("test")
    lookups = [score for n in size.lengths for score in Examiner(model, world, seed=n).lookups(n, size.questions)]
    lists = [score for n in size.list_lengths for score in Examiner(model, world, seed=n).lists(n, size.lists)]
    return {
        "lookups": [score.row() for score in lookups],
        "lists": [score.row() for score in lists],
        "perplexity": {"prose": nats(model, world, world.prose), "code": nats(model, world, world.code)},
    }


def describe(trainer: Trainer, data: Data, prose: Path | None) -> dict[str, Any]:
    """What the model card says about the training."""
    progress, parameters = trainer.progress, sum(p.numel() for p in trainer.model.parameters())
    return {
        "parameters": parameters / 1e6,
        "steps": progress.step,
        "tokens": progress.tokens / 1e6,
        "minutes": progress.seconds / 60,
        "runs": progress.runs,
        "machine": f"{torch.get_num_threads()} CPU cores ({platform.machine()})" if trainer.device.type == "cpu" else "a GPU",
        "positions": POSITIONS,
        "longest": max(task.length for stage in trainer.stages for task in stage.tasks),
        "prose_source": "the docstrings of the Python standard library" if prose is None else "public-domain books",
        "held_out_prose": ", ".join(data.held_out_prose[:2]),
    }


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.namm_tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--prose", type=Path, help="folder of .txt books (default: the standard library's docstrings)")
    parser.add_argument("--work", type=Path, help="folder for checkpoint and log (default: OUT with '-work' added)")
    parser.add_argument("--minutes", type=float, default=100, help="training time, over all runs together")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--smoke", action="store_true", help="a minute's run of everything, to test the recipe")
    return parser.parse_args(arguments)


def pick_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    size = SMOKE if options.smoke else FULL
    work = options.work or options.out.with_name(f"{options.out.name}-work")
    work.mkdir(parents=True, exist_ok=True)
    device = pick_device(options.device)
    data = load_data(options.prose, work, size.modules)
    model = build_model(data.world("train").encode, size.hidden, size.layers).to(device)
    trainer = Trainer(data, model, work, options.minutes, size.stages)
    trainer.resume()
    trainer.train()
    export(model, data.tokenizer, options.out)
    scores = evaluate(options.out, data, device, size)
    trainer.log.write("scores", **scores)
    write_card(options.out, scores, describe(trainer, data, options.prose))
    shutil.copy(trainer.log.path, options.out / "log.jsonl")
