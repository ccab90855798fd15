"""Episodes that an `Actor` plays, and their returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import DecisionTransformerModel

from namm_lab.decision.actor import Actor
from namm_lab.decision.environments import Task
from namm_llm import CacheConfig

FIRST_SEED = 1_000_000  # of the episodes that are played; training draws its own


@dataclass(frozen=True)
class Played:
    """Episodes under one policy."""

    returns: list[float]
    """One for each episode."""
    kept: float
    """Share of the tokens seen that the cache holds at the end, the window counted, mean over
    episodes.
    """


def play(
    model: DecisionTransformerModel,
    task: Task,
    config: CacheConfig | None,
    episodes: int,
    *,
    first_seed: int = FIRST_SEED,
) -> Played:
    """Play `episodes` episodes side by side, the likeliest action each time.

    The environments of the same number are the same for every policy.
    """
    environments = [task.make() for _ in range(episodes)]
    starts = [each.reset(seed=first_seed + at)[0] for at, each in enumerate(environments)]
    states = torch.from_numpy(np.stack(starts)).float()
    gained, kept = torch.zeros(episodes), torch.zeros(episodes)
    running, actor = list(range(episodes)), Actor(model, config)
    while True:
        to_go = (task.target - gained[running]) / task.scale
        chosen = actor.act(states, to_go).argmax(-1)
        actor.observe(one_hot(chosen, task.actions).float())
        taken = zip(running, chosen.numpy(), strict=True)
        found = [environments[at].step(action) for at, action in taken]
        gained[running] += torch.tensor([float(each[1]) for each in found])
        on = [row for row, (_, _, ended, cut, _) in enumerate(found) if not (ended or cut)]
        if len(on) < len(running):
            shares = held_shares(actor)
            for row in set(range(len(running))) - set(on):
                kept[running[row]] = shares[row]
            if not on:
                return Played(gained.tolist(), float(kept.mean()))
            running = [running[row] for row in on]
            actor.keep(on)
        states = torch.from_numpy(np.stack([found[row][0] for row in on])).float()


def held_shares(actor: Actor) -> Tensor:
    """Share of the tokens seen that each environment's cache holds, `[B]`."""
    kept = torch.tensor(actor.cache.kept_tokens()).float().mean((0, 2))
    return kept / torch.tensor(actor.cache.seen_tokens())
