"""A text that is repeated behind its own cache: what a policy sees of it (see `KVzip`).

The repetition goes into a fork, which is thrown away; only the policy's state goes into the cache.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from namm_llm.attention.observation import Scratch
from namm_llm.cache.cache import ManagedCache
from namm_llm.cache.update import gather, observe, set_state
from namm_llm.policies.base import ObservingPolicy
from namm_llm.tokens import HeadTokens


def fork_without_steps(cache: ManagedCache) -> ManagedCache:
    """A fork that runs no eviction step, however much is read."""
    fork = cache.fork()
    for layer in fork.managed:
        for sequence in layer.sequences:
            sequence.config = replace(sequence.config, interval=sys.maxsize)
    return fork


@torch.no_grad()
def observe_repetition(
    cache: ManagedCache, fork: ManagedCache, span: tuple[int, int], sinks: int
) -> None:
    """Update the policy's state of the tokens of `cache`, whose window is empty, from the queries
    that `fork` has read last; these are forgotten.

    span: positions of the chunk that is repeated. sinks: tokens before the text.
    """
    for layer, repeated in zip(cache.managed, fork.managed, strict=True):
        for own, sequence in zip(layer.sequences, repeated.sequences, strict=True):
            policy, scratch, states = own.config.policy, Scratch(), []
            assert isinstance(policy, ObservingPolicy)
            for index, (parts, length) in enumerate(
                zip(gather(sequence), own.retained.lengths, strict=True)
            ):
                tokens = HeadTokens.joined(parts).floats()
                observation = observe(sequence, index, tokens, layer.rotation, scratch)
                state = policy.update_repeated(tokens, observation, span, sinks)[:length]
                states.append(state.to(policy.state_dtype))
            state = torch.cat(states)
            set_state(own, state)
            set_state(sequence, state)
            sequence.queries.keep_last(0)
