"""`python -m namm_lab.tiny`: tokenizer, training, scores, model card; run it again to continue."""

from __future__ import annotations

import argparse
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from namm_lab.tiny.curriculum import CONTINUED_STAGES, SMOKE_STAGES, STAGES, Stage
from namm_lab.tiny.data import Data, load_data
from namm_lab.tiny.evaluate import Examiner, nats
from namm_lab.tiny.export import export, write_card
from namm_lab.tiny.model import POSITIONS, build_model, continue_model
from namm_lab.tiny.trainer import Trainer


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


FULL = Size(320, 5, None, STAGES, (2000, 4000, 8000, 16000), 208, (1000, 2000, 4000), 12)
SMOKE = Size(64, 2, 60, SMOKE_STAGES, (500,), 4, (500,), 1)


def evaluate(folder: Path, data: Data, device: torch.device, size: Size) -> dict[str, Any]:
    """All scores of the exported weights."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    world = data.world("test")
    records, lists = (
        Examiner(model, world),
        Examiner(model, world),
    )  # neither changes the other's documents
    return {
        "lookups": [s.row() for n in size.lengths for s in records.lookups(n, size.questions)],
        "lists": [
            s.row()
            for ask in (lists.numbered_lists, lists.lists)
            for n in size.list_lengths
            for s in ask(n, size.lists)
        ],
        "perplexity": {
            "prose": nats(model, world, world.prose),
            "code": nats(model, world, world.code),
        },
    }


def describe(
    trainer: Trainer, data: Data, prose: Path | None, start: Path | None
) -> dict[str, Any]:
    """What the model card says about the training."""
    progress, parameters = trainer.progress, sum(p.numel() for p in trainer.model.parameters())
    threads = torch.get_num_threads()
    on_cpu = f"{threads} CPU core{'s' if threads > 1 else ''} ({platform.machine()})"
    return {
        "start": "nothing"
        if start is None
        else "an earlier checkpoint (`--start`, see namm_lab/tiny/README.md)",
        "parameters": parameters / 1e6,
        "steps": progress.step,
        "tokens": progress.tokens / 1e6,
        "minutes": progress.seconds / 60,
        "history": _history([run for run in progress.runs if run["from_step"] < progress.step]),
        "machine": on_cpu if trainer.device.type == "cpu" else "one accelerator",
        "positions": POSITIONS,
        "longest": max(task.length for stage in trainer.stages for task in stage.tasks),
        "prose_source": "the docstrings of the standard library"
        if prose is None
        else "public-domain books",
        "held_out_prose": ", ".join(data.held_out_prose[:2]),
    }


def _history(runs: list[dict[str, Any]]) -> str:
    if len(runs) <= 1:
        return "One run."
    starts = ", ".join(str(run["from_step"]) for run in runs)
    return (
        f"{len(runs)} runs, each resumed from the one before, begun at steps {starts}; see "
        "`log.jsonl`."
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m namm_lab.tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--prose", type=Path, help="folder of .txt books (default: docstrings)")
    parser.add_argument(
        "--work", type=Path, help="folder for checkpoint and log (default: OUT-work)"
    )
    parser.add_argument(
        "--minutes", type=float, default=100, help="training time, over all runs together"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--start", type=Path, help="folder of a model to go on from, instead of from nothing"
    )
    parser.add_argument("--layers", type=int, help="how deep the model becomes (default: 5)")
    parser.add_argument(
        "--kv-heads",
        type=int,
        help="KV heads of a model to go on from, a multiple of its own (default: as it is)",
    )
    parser.add_argument(
        "--stage", help="the stage of the curriculum to begin with (default: the first)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a quick run of everything, to test the recipe"
    )
    return parser.parse_args(arguments)


def pick_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def from_stage(stages: tuple[Stage, ...], name: str) -> tuple[Stage, ...]:
    names = [stage.name for stage in stages]
    if name not in names:
        raise SystemExit(f"there is no stage {name!r}; there are: {', '.join(names)}")
    return stages[names.index(name) :]


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    size = SMOKE if options.smoke else FULL
    work = options.work or options.out.with_name(f"{options.out.name}-work")
    work.mkdir(parents=True, exist_ok=True)
    device = pick_device(options.device)
    data = load_data(options.prose, work, size.modules, options.start)
    world = data.world("train")
    layers = options.layers or size.layers
    if options.start is None:
        model, stages = build_model(world.encode, size.hidden, layers), size.stages
    else:
        model, stages = (
            continue_model(options.start, world.encode, layers, options.kv_heads),
            CONTINUED_STAGES,
        )
    if options.stage is not None:
        stages = from_stage(stages, options.stage)
    trainer = Trainer(world, model.to(device), work, options.minutes, stages)
    trainer.resume()
    trainer.train()
    export(model, data.tokenizer, options.out)
    scores = evaluate(options.out, data, device, size)
    trainer.log.write("scores", **scores)
    write_card(options.out, scores, describe(trainer, data, options.prose, options.start))
    shutil.copy(trainer.log.path, options.out / "log.jsonl")
