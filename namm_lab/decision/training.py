"""A small Decision Transformer, trained on episodes: by default some minutes on two cores."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy, one_hot
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from namm_lab.decision.environments import CARTPOLE, TMAZE, Task
from namm_lab.decision.episodes import Batch, draw_episodes

Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Recipe:
    """How one is trained."""

    episodes: int
    steps: int
    batch: int = 32
    rate: float = 2e-3
    seed: int = 0
    hidden: int = 64
    layers: int = 2
    heads: int = 4


RECIPES = {TMAZE.name: Recipe(4000, 800), CARTPOLE.name: Recipe(600, 400, batch=16)}


def new_model(task: Task, recipe: Recipe) -> DecisionTransformerModel:
    """Random weights; an action's prediction is its logits."""
    torch.manual_seed(recipe.seed)
    return DecisionTransformerModel(
        DecisionTransformerConfig(
            state_dim=task.states,
            act_dim=task.actions,
            hidden_size=recipe.hidden,
            max_ep_len=task.steps + 1,
            action_tanh=False,
            n_positions=3 * task.steps,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def train(
    task: Task, recipe: Recipe | None = None, report: Report = lambda step, loss, seconds: None
) -> DecisionTransformerModel:
    """Learns to give the actions that were taken where such a return was still to come.

    report: step, mean loss since the last report and seconds so far, every 100 steps.
    """
    recipe = recipe or RECIPES[task.name]
    began, rng = time.perf_counter(), random.Random(recipe.seed)
    episodes = draw_episodes(task, recipe.episodes, recipe.seed)
    model = new_model(task, recipe).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, recipe.steps)
    losses: list[float] = []
    for step in range(1, recipe.steps + 1):
        batch = Batch.of(rng.sample(episodes, recipe.batch), task)
        found = model(
            states=batch.states,
            actions=one_hot(batch.actions, task.actions).float(),
            returns_to_go=batch.returns,
            timesteps=torch.arange(batch.actions.shape[1]).expand(len(batch.actions), -1),
        )
        loss = cross_entropy(found.action_preds[batch.real], batch.actions[batch.real])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0 or step == recipe.steps:
            report(step, sum(losses) / len(losses), time.perf_counter() - began)
            losses.clear()
    return ready(model)


def ready(model: Any) -> DecisionTransformerModel:
    """The model, for acting."""
    return cast(DecisionTransformerModel, model.eval())
