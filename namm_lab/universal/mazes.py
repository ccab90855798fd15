"""Episodes of a task, read by its Decision Transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import DecisionTransformerModel

from namm_lab.decision.environments import TMAZE, Task
from namm_lab.decision.episodes import Batch, Episode, draw_episodes
from namm_lab.decision.table import INTERVAL
from namm_lab.train.collection import FeatureSample
from namm_lab.universal.domain import Domain, for_rows, mean_likelihoods
from namm_lab.universal.sequences import Sequences
from namm_llm import CacheConfig

_STEP = 3  # tokens: return, state, action


class MazeDomain(Domain):
    """Good episodes of controllers: the right actions are those that were taken, in the T-maze that
    at the junction alone.
    """

    interval = INTERVAL

    def __init__(self, model: DecisionTransformerModel, task: Task) -> None:
        self.name = task.name
        self._model, self._task = model, task

    @torch.no_grad()
    def samples(self, config: CacheConfig, seed: int, count: int) -> list[FeatureSample]:
        batch = Batch.of(self._episodes(seed, count), self._task)
        sequences = self._sequences(batch)
        firsts = [0] * len(sequences.lengths)
        if self._task is TMAZE:
            firsts = [length - _STEP for length in sequences.lengths]
        return sequences.samples(config, firsts)

    @torch.no_grad()
    def likelihoods(self, configs: Sequence[CacheConfig], seed: int, count: int) -> Tensor:
        episodes = self._episodes(seed, count)
        batch, rows = Batch.of(episodes, self._task), len(configs)
        hidden = self._sequences(batch).read(for_rows(configs, len(episodes)))
        logits = self._model.predict_action(hidden[:, 1::_STEP])
        taken = batch.actions.repeat(rows, 1)[..., None]
        likely = logits.log_softmax(-1).gather(-1, taken)[..., 0]
        asked = batch.real.repeat(rows, 1)
        if self._task is TMAZE:
            asked = asked & (asked.cumsum(1) == asked.sum(1, keepdim=True))
        return mean_likelihoods((likely * asked).sum(1) / asked.sum(1), rows)

    def _episodes(self, seed: int, count: int) -> list[Episode]:
        drawn = draw_episodes(self._task, 6 * count, seed, training=False)
        good = [each for each in drawn if float(each.rewards.sum()) >= 0.9 * self._task.target]
        return good[:count]

    def _sequences(self, batch: Batch) -> Sequences:
        model, (_rows, steps) = self._model, batch.actions.shape
        actions = one_hot(batch.actions, self._task.actions).float()
        parts = (
            model.embed_return(batch.returns),
            model.embed_state(batch.states),
            model.embed_action(actions),
        )
        times = model.embed_timestep(torch.arange(steps))
        tokens = torch.stack([part + times for part in parts], 2).flatten(1, 2)
        lengths = [_STEP * each for each in batch.real.sum(1).tolist()]
        return Sequences(model.encoder, model.embed_ln(tokens), lengths, position=0)
