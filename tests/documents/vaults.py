"""A text, questions about it, and runners of a tiny model with several eviction settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from namm_llm.namm import Namm, NammSettings
from namm_llm.runner import Runner

TEXT = " ".join(f"The vault {n} holds {n * 7919 % 1000} coins and a fox." for n in range(10))
QUESTIONS = [
    "Who signs?",
    "How many coins does vault 3 hold, and is there a fox in it or not?",
    "Why?",
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"policy": "h2o", "budget": 0.25, "interval": 32},
    {"policy": "namm", "budget": 0.5, "interval": 32, "budget_scope": "model"},
    {"policy": "replay", "budget": 0.25, "interval": 32},
    {"policy": "knorm", "budget": 0.5, "interval": 32, "kv_bits": 8},
]
IDS = ["full", "h2o", "namm", "replay", "8-bit"]


def random_namm(seed: int = 0, **settings: Any) -> Namm:
    """Made for nothing; equal for equal seeds and settings."""
    torch.manual_seed(seed)
    attention_dim = settings.pop("attention_dim", 32)
    zeros = Namm.zeros(attention_dim, NammSettings(**settings))
    theta = torch.randn(len(zeros.theta)) * 0.1
    return Namm.from_vector(theta, zeros.mean, zeros.variance, zeros.settings)


REMEMBERING = {"replay": True, "neighbour_radius": 2, "mlp_hidden": 3, "attention_dim": 0}


def load(folder: Path, **settings: Any) -> Runner:
    """A runner; the policy `namm` gets a random one."""
    if settings.get("policy") == "namm":
        settings = {"namm": random_namm(), **settings}
    return Runner.load(folder, **settings)
