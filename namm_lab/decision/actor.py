"""`Actor`: a Decision Transformer that acts in a batch of environments, its past in a
`ManagedCache`.

A step is three tokens: the return that is still to come, the state, the action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DecisionTransformerModel

from namm_llm import CacheConfig, ManagedCache, PolicyError, make_cache_config
from namm_llm.engine import forward
from namm_llm.policies import make_policy, policy_names

KINDS = ("return", "state", "action")
"""Of the tokens of a step, in their order."""


class Actor:
    """Acts step by step: `act`, then `observe` what was done, as `DecisionTransformerModel.forward`
    would over the whole past (a test).

    All environments of the batch are at the same step.
    """

    def __init__(self, model: DecisionTransformerModel, config: CacheConfig | None = None) -> None:
        """config: settings of the cache, the full one without. Raises PolicyError for policies that
        need what this model or this way of reading has not.
        """
        self._model = model
        self._config = config or make_cache_config("full")
        _check(self._config)
        self.reset()

    def reset(self) -> None:
        """Begin new episodes."""
        self.cache = ManagedCache.for_model(self._model, self._config)
        self._step = 0
        self._last: Tensor | None = None

    @torch.no_grad()
    def act(self, states: Tensor, returns_to_go: Tensor) -> Tensor:
        """The predicted actions `[B, A]`, given states `[B, S]` and the returns `[B]` that are to
        come.
        """
        assert self._step == 0 or self._last is not None, "act again before observe"
        model, time = self._model, self._time(self._step)
        tokens = [
            model.embed_return(returns_to_go[:, None]) + time,
            model.embed_state(states) + time,
        ]
        if self._last is not None:
            tokens.insert(0, model.embed_action(self._last) + self._time(self._step - 1))
        embeds = model.embed_ln(torch.stack(tokens, 1))
        hidden = forward.feed_embeds(model.encoder, self.cache, embeds, position=0)
        self._last, self._step = None, self._step + 1
        actions: Tensor = model.predict_action(hidden[:, -1])
        return actions

    def observe(self, actions: Tensor) -> None:
        """The actions `[B, A]` that were taken; they are read together with the next states."""
        self._last = actions

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these environments of the batch, in this order."""
        self.cache.select_rows(rows)
        if self._last is not None:
            self._last = self._last[list(rows)]

    def _time(self, step: int) -> Tensor:
        """The embedding of a step, which stands in for positions: those of the encoder are 0."""
        at = torch.tensor([step], device=self._model.device)
        embedded: Tensor = self._model.embed_timestep(at)
        return embedded


def _check(config: CacheConfig) -> None:
    policy = config.policy
    if policy.rotates or policy.repeats:
        what = "rotary positions (RoPE)" if policy.rotates else "a text that it can read again"
        raise PolicyError(
            f"policy {policy.name} needs {what}, which a Decision Transformer has not; choose one "
            f"of {', '.join(usable_policies())}, or a NAMM of the family universal or published."
        )


def usable_policies() -> tuple[str, ...]:
    """Names of the policies that need no more than keys, values, positions and attention."""
    plain = [make_policy(name) for name in policy_names() if name != "namm"]
    return tuple(each.name for each in plain if not (each.rotates or each.repeats))
