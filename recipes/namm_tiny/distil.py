"""`python -m recipes.namm_tiny.distil`: the NAMM of the bundled model, learnt from what its full cache really uses."""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from namm_llm.training import DistilSettings, Lesson, distil
from recipes.namm_tiny.data import load_data
from recipes.namm_tiny.documents import World, reading

LENGTHS = (2048, 4096)
SPACINGS = (48, 96, 160)  # tokens for each record
QUESTIONS = 12


def draw_lesson(rng: random.Random, world: World) -> Lesson:
    """A training document with records in it, and a conversation about some of them."""
    length = rng.choice(LENGTHS)
    example = reading(rng, world, length, rng.choice(SPACINGS), QUESTIONS)
    end = example.cuts[-1]  # the last cut is where the document ends
    return Lesson(example.ids[:end], example.ids[end:])


def main(arguments: list[str] | None = None) -> None:
    defaults = DistilSettings()
    parser = argparse.ArgumentParser(prog="python -m recipes.namm_tiny.distil", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the exported model; namm.safetensors is written into it")
    parser.add_argument("--prose", type=Path, help="folder of .txt books (default: docstrings)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the model's training, with its tokenizer")
    parser.add_argument("--out", type=Path, help="file to write (default: MODEL/namm.safetensors)")
    parser.add_argument("--lessons", type=int, default=24)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--rounds", type=int, default=defaults.rounds)
    options = parser.parse_args(arguments)
    model = LlamaForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    world = load_data(options.prose, options.work).world("train")
    rng = random.Random(0)
    lessons = [draw_lesson(rng, world) for _ in range(options.lessons)]
    settings = DistilSettings(steps=options.steps, rounds=options.rounds)
    began = time.perf_counter()
    namm = distil(model, lessons, settings, report=lambda row: print(json.dumps(row), flush=True))
    namm.save(options.out or options.model / "namm.safetensors")
    print(json.dumps({"seconds": round(time.perf_counter() - began), "namm": namm.fingerprint, **asdict(settings)}), flush=True)


if __name__ == "__main__":
    main()
