"""What a cache held of an episode: an `Inspection` like that of a document, a line a step."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch.nn.functional import one_hot
from transformers import DecisionTransformerModel

from namm_lab.decision.actor import KINDS, Actor
from namm_lab.decision.environments import TMAZE, Observation, Task
from namm_llm import CacheConfig, kept_entries
from namm_llm.inspect import Inspection, Side
from namm_llm.inspect.figure import load_matplotlib, save_figure

CUE, JUNCTION = "state with the cue", "state at the junction"


def inspect_episode(
    model: DecisionTransformerModel, task: Task, config: CacheConfig, seed: int
) -> Inspection:
    """Play the episode of this seed under `config`. Tokens are returns, states and actions; in the
    T-maze states with the cue and at the junction are kinds of their own.
    """
    environment, actor = task.make(), Actor(model, config)
    state, _ = environment.reset(seed=seed)
    to_go, over = task.target, False
    pieces, kinds = list[str](), list[str]()
    while not over:
        seen = torch.from_numpy(np.asarray(state)).float()[None]
        action = int(actor.act(seen, torch.tensor([to_go / task.scale])).argmax())
        actor.observe(one_hot(torch.tensor([action]), task.actions).float())
        pieces += [f"R {to_go:.2f}  ", f"{_state(task, state)}  ", f"{task.moves[action]}\n"]
        kinds += [KINDS[0], _kind(task, state), KINDS[2]]
        state, reward, ended, cut, _ = environment.step(np.int64(action))
        to_go, over = to_go - float(reward), ended or cut
    held, stats = kept_entries(actor.cache), actor.cache.stats()
    layers = list(range(1, held.shape[0] + 1))
    side = Side(stats.policy, held, stats.nbytes, stats.full_nbytes)
    # the last action ends the episode and is never read
    return Inspection(
        name=f"{task.name}, episode {seed}",
        model="decision transformer",
        pieces=pieces[:-1],
        kinds=kinds[:-1],
        is_code=False,
        layers=layers,
        sides=[side],
    )


def _kind(task: Task, state: Observation) -> str:
    if task is TMAZE and (state[0] or state[1]):
        return CUE if state[0] else JUNCTION
    return KINDS[1]


def _state(task: Task, state: Observation) -> str:
    if task is not TMAZE:
        return f"at {state[0]:+.2f}, leaning {state[2]:+.3f}"
    cue = {-1: "cue left, ", 1: "cue right, "}.get(int(state[0]), "")
    place = "junction" if state[1] else "corridor"
    return f"{cue}{place}"


def draw_strip(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Write the episode as a picture, returns, states and actions over time, each shaded by the
    share of its entries that are held.

    Raises NammError without matplotlib, UsageError if the path cannot be written.
    """
    pyplot = load_matplotlib()
    shares = inspection.sides[0].shares
    steps = -(-len(shares) // len(KINDS))
    strip = torch.full((steps * len(KINDS),), torch.nan)  # the last action is never read
    strip[: len(shares)] = shares
    figure, axis = pyplot.subplots(figsize=(10, 1.9), layout="constrained")
    image = axis.imshow(
        strip.view(steps, len(KINDS)).T.numpy(), aspect="auto", cmap="Blues", vmin=0, vmax=1
    )
    axis.set_yticks(range(len(KINDS)), KINDS)
    axis.set_xlabel("step")
    for kind, mark in ((CUE, "cue"), (JUNCTION, "junction")):
        for at in (at for at, own in enumerate(inspection.kinds) if own == kind):
            axis.text(at // len(KINDS), 1, mark, ha="center", va="center", fontsize=7, color="red")
    figure.colorbar(image, label="share kept")
    axis.set_title(f"{inspection.name}: {inspection.sides[0].policy}", fontsize="medium")
    save_figure(figure, path)
