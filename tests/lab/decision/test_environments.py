"""The T-maze, and what simple controllers do in it and in CartPole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from namm_lab.decision.environments import CARTPOLE, FORWARD, LEFT, RIGHT, TMAZE, TMaze, task_named
from namm_lab.decision.episodes import Batch, draw_episodes
from namm_llm import UsageError


def walk(maze: TMaze, arm: int) -> tuple[list[np.ndarray], list[float]]:
    """Forward to the junction, and into this arm."""
    states, rewards, over = [maze.reset(seed=5)[0]], [], False
    while not over:
        action = arm if states[-1][1] else FORWARD
        state, reward, over, _, _ = maze.step(np.int64(action))
        states.append(state)
        rewards.append(reward)
    return states, rewards


def test_the_cue_is_seen_once_and_names_the_right_arm():
    maze = TMaze()
    states, rewards = walk(maze, LEFT)
    cues = [float(state[0]) for state in states if state[0]]
    assert len(cues) == 1
    assert rewards[-1] == (1.0 if cues == [-1.0] else -1.0)
    assert walk(maze, RIGHT)[1][-1] == -rewards[-1]
    assert sum(rewards[:-1]) == 0.0
    assert maze.observation_space.contains(states[0])


def test_walls_cost_and_an_episode_ends():
    maze = TMaze(shortest=3, longest=3)
    maze.reset(seed=0)
    found = [maze.step(np.int64(LEFT)) for _ in range(6)]
    assert [each[1] for each in found] == [-0.1] * 6
    assert [each[3] for each in found] == [False] * 5 + [True]


@pytest.mark.parametrize("task", [TMAZE, CARTPOLE], ids=lambda task: task.name)
def test_episodes_are_the_same_for_a_seed_and_good_and_bad_ones_are_among_them(task):
    episodes, again = (draw_episodes(task, 40, seed=1) for _ in range(2))
    assert all(torch.equal(a.states, b.states) for a, b in zip(episodes, again, strict=True))
    returns = [float(each.rewards.sum()) for each in episodes]
    assert max(returns) == task.target
    assert min(returns) < 0.5 * task.target
    batch = Batch.of(episodes[:3], task)
    assert batch.real.sum(1).tolist() == [len(each) for each in episodes[:3]]
    assert batch.returns[0, 0, 0] == pytest.approx(returns[0] / task.scale, abs=1e-6)


def test_a_task_that_is_not_there_is_an_error_with_names():
    with pytest.raises(UsageError, match="there are tmaze, cartpole"):
        task_named("maze")
