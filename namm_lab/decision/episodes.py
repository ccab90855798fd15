"""Episodes that simple controllers played: what a Decision Transformer learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from namm_lab.decision.environments import FORWARD, LEFT, RIGHT, TMAZE, Task

Controller = Callable[[Any, np.random.Generator], int]
"""An observation to an action."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps."""

    states: Tensor
    """`[T, S]`."""
    actions: Tensor
    """`[T]`, their numbers."""
    rewards: Tensor
    """`[T]`."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def returns_to_go(self) -> Tensor:
        """`[T]`: the sum of the rewards from each step on."""
        return self.rewards.flip(0).cumsum(0).flip(0)


@dataclass(frozen=True)
class Batch:
    """Episodes side by side, the shorter ones filled up with zeros at their end."""

    states: Tensor
    """`[B, T, S]`."""
    actions: Tensor
    """`[B, T]`."""
    returns: Tensor
    """`[B, T, 1]`, scaled."""
    real: Tensor
    """Bool `[B, T]`: false where an episode is over."""

    @classmethod
    def of(cls, episodes: Sequence[Episode], task: Task) -> Batch:
        """These episodes."""
        pad: Any = torch.nn.utils.rnn.pad_sequence
        returns = [each.returns_to_go[:, None] / task.scale for each in episodes]
        return cls(
            pad([each.states for each in episodes], True),
            pad([each.actions for each in episodes], True),
            pad(returns, True),
            pad([torch.ones(len(each), dtype=torch.bool) for each in episodes], True),
        )


def draw_episodes(task: Task, count: int, seed: int, *, training: bool = True) -> list[Episode]:
    """`count` episodes, each by a controller of its own; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [play_controller(task, rng, training=training) for _ in range(count)]


def play_controller(task: Task, rng: np.random.Generator, *, training: bool = True) -> Episode:
    """One episode. Half of the T-maze's controllers know the cue, the others guess; CartPole's err
    in a share of the steps that is drawn for each.
    """
    environment = task.make(training=training)
    controller = _tmaze(rng) if task is TMAZE else _cartpole(rng)
    state, _ = environment.reset(seed=int(rng.integers(2**31)))
    states, actions, rewards, over = [], [], [], False
    while not over:
        action = controller(state, rng)
        states.append(state)
        actions.append(action)
        state, reward, ended, cut, _ = environment.step(np.int64(action))
        rewards.append(float(reward))
        over = ended or cut
    return Episode(
        torch.from_numpy(np.stack(states)).float(), torch.tensor(actions), torch.tensor(rewards)
    )


def _tmaze(rng: np.random.Generator) -> Controller:
    knows, cue = rng.random() < 0.5, [0]

    def act(state: Any, rng: np.random.Generator) -> int:
        cue[0] = int(state[0]) or cue[0]
        if rng.random() < 0.03:
            return int(rng.integers(3))
        if not state[1]:
            return FORWARD
        side = cue[0] if knows else int(rng.choice((-1, 1)))
        return RIGHT if side > 0 else LEFT

    return act


def _cartpole(rng: np.random.Generator) -> Controller:
    """Pushes to where the pole falls, and back to the middle."""
    errs = rng.random() ** 2

    def act(state: Any, rng: np.random.Generator) -> int:
        if rng.random() < errs:
            return int(rng.integers(2))
        place, speed, angle, turn = state
        return int(3.0 * angle + turn + 0.1 * place + 0.2 * speed > 0)

    return act
