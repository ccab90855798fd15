"""Environments of gymnasium: a T-maze, whose cue must be remembered, and CartPole, which needs no
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from namm_llm import UsageError

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise UsageError("environments need gymnasium: pip install 'namm-llm[rl]'.") from error

Observation = NDArray[np.float32]
FORWARD, LEFT, RIGHT = range(3)


class TMaze(gymnasium.Env[Observation, np.int64]):
    """A corridor with a junction at its end (Bakker 2002, "Reinforcement learning with long
    short-term memory"): a cue somewhere in its first steps tells which arm is right.

    An observation is the cue (-1 left, 1 right, else 0), whether this is the junction, and two
    distances that are drawn anew at every step. Actions are forward, left and right. The right arm
    gives 1, the wrong one -1, and both end the episode; a move into a wall gives -0.1.
    """

    def __init__(self, shortest: int = 20, longest: int = 28, cue_within: int = 8) -> None:
        """shortest, longest: of the corridor, in steps. cue_within: places at its beginning, one of
        which has the cue. At the first of all it would stay in every cache with sinks, for want of
        nothing but being first.
        """
        self.shortest, self.longest, self.cue_within = shortest, longest, cue_within
        self.observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue = int(self.np_random.choice((-1, 1)))
        self.length = int(self.np_random.integers(self.shortest, self.longest + 1))
        self.cue_at = int(self.np_random.integers(min(self.cue_within, self.length)))
        self.place, self.steps = 0, 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        at_end, turns = self.place == self.length, int(action) != FORWARD
        if at_end and turns:
            right = int(action) == (RIGHT if self.cue > 0 else LEFT)
            return self._observation(), 1.0 if right else -1.0, True, False, {}
        reward = -0.1 if at_end or turns else 0.0
        self.place += not (at_end or turns)
        return self._observation(), reward, False, self.steps >= 2 * self.longest, {}

    def _observation(self) -> Observation:
        cue = self.cue if self.place == self.cue_at else 0
        noise = self.np_random.uniform(-1.0, 1.0, 2)
        return np.array([cue, self.place == self.length, *noise], np.float32)


@dataclass(frozen=True)
class Task:
    """An environment, and what a Decision Transformer has to know of it."""

    name: str
    states: int
    """Numbers of an observation."""
    actions: int
    steps: int
    """Of an episode, at most."""
    target: float
    """The return to ask for: the most that can be had."""
    scale: float
    """What returns are divided by on their way into the model."""
    moves: tuple[str, ...]
    """What its actions are called."""

    def make(self, *, training: bool = False) -> gymnasium.Env[Any, Any]:
        """One environment. training: the T-maze with corridors of any length up to its longest."""
        if self.name == TMAZE.name:
            return TMaze(shortest=2) if training else TMaze()
        return gymnasium.make("CartPole-v1", max_episode_steps=self.steps)


TMAZE = Task("tmaze", 4, 3, steps=56, target=1.0, scale=1.0, moves=("forward", "left", "right"))
CARTPOLE = Task("cartpole", 4, 2, steps=100, target=100.0, scale=100.0, moves=("left", "right"))
TASKS = {task.name: task for task in (TMAZE, CARTPOLE)}


def task_named(name: str) -> Task:
    """UsageError, with the names, if there is none of that name."""
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}; there are {', '.join(TASKS)}.")
    return TASKS[name]
