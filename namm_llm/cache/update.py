"""One eviction step: gather, observe, score, select, compact. Tokens leave the cache only here.

gather    retained tokens and window of every KV head, side by side
observe   the policy updates its state from the attention that the newest queries paid
score     the policy scores every token
select    budget or threshold, and protected tokens: which ones stay
compact   these are moved into new storage; everything else is freed
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from namm_llm.attention import backend
from namm_llm.attention.observation import Observation, Scratch
from namm_llm.attention.rope import Rotation
from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.sequence import LayerSequence
from namm_llm.config import CacheConfig
from namm_llm.policies.base import ObservingPolicy, ScorePolicy
from namm_llm.policies.budget import TokenCost
from namm_llm.policies.selection import by_budget, by_padded_threshold, by_threshold, with_floor
from namm_llm.tokens import HeadTokens

STAGES = ("observe", "score", "select", "compact")  # gathering is counted as compacting
_Stage = Callable[[str], AbstractContextManager[None]]
_Scored = tuple[list[HeadTokens], list[Tensor]]


@dataclass(frozen=True)
class EvictionEvent:
    """One eviction step of one sequence in one layer, as `ManagedCache.on_eviction` is told of it
    right before tokens are removed.
    """

    layer: int
    """Number of the layer, among those that evict."""
    row: int
    """Number of the sequence in the batch."""
    seen: int
    """Tokens of the sequence so far; the newest one stands at `seen - 1`."""
    heads: Sequence[HeadTokens]
    """`[G]`: the tokens of each KV head, with the policy's new state."""
    scores: Sequence[Tensor]
    """`[G]` of `[N_g]` each; empty for a policy that never evicts."""
    kept: Sequence[Tensor | None]
    """`[G]`: ascending indices of the tokens that stay, None where all do."""


class Stopwatch:
    """Seconds spent in each stage of the eviction steps of a cache (`ManagedCache.stopwatch`).

    Stages never nest, so their sum is what the policy costs.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """clock: any that counts seconds."""
        self._clock = clock
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the block as this stage."""
        _synchronize()
        started = self._clock()
        try:
            yield
        finally:
            _synchronize()
            self.seconds[name] += self._clock() - started


@torch.no_grad()  # nobody trains through an eviction
def evict(
    layers: Sequence[ManagedLayer],
    row: int,
    *,
    num_layers: int,
    keep_all: bool = False,
    on_eviction: Callable[[EvictionEvent], None] | None = None,
    stopwatch: Stopwatch | None = None,
) -> None:
    """Run one eviction step of the sequence `row` in these layers, whose tokens share a budget.

    layers: one layer, or all of them for a budget of the whole model. num_layers: managed layers of
    the model, for budgets in bytes. keep_all: update the policy's state and compact, but remove no
    token.
    """
    stage: _Stage = _untimed if stopwatch is None else stopwatch.stage
    sequences = [layer.sequences[row] for layer in layers]
    scored = [
        _score(sequence, layer, stage) for sequence, layer in zip(sequences, layers, strict=True)
    ]
    with stage("select"):
        if keep_all or not sequences[0].config.policy.evicts:
            kept: list[list[Tensor | None]] = [[None] * len(heads) for heads, _ in scored]
        else:
            kept = _select(sequences, scored, num_layers)
    for layer, sequence, (heads, scores), keep in zip(layers, sequences, scored, kept, strict=True):
        if on_eviction is not None:
            on_eviction(EvictionEvent(layer.index, row, sequence.seen, heads, scores, keep))
        with stage("compact"):
            _compact(sequence, heads, keep)


def gather(sequence: LayerSequence) -> list[HeadTokens]:
    """All tokens of every KV head, those of the window with a state of 0."""
    retained = sequence.retained
    if not sequence.window.count:
        return retained.heads()
    keys, values = sequence.window.columns()
    start, stop = sequence.compacted_at, sequence.seen
    positions = torch.arange(start, stop, dtype=torch.int32, device=keys.device)
    state = retained.state.new_zeros(sequence.window.count, retained.state.shape[1])
    joined = []
    for old, key, value in zip(retained.heads(), keys, values, strict=True):
        new = HeadTokens(key, value, positions, state)
        joined.append(old.join(new if old.scales is None else new.quantised()))
    return joined


def observe(
    sequence: LayerSequence,
    head: int,
    tokens: HeadTokens,
    rotation: Rotation | None,
    scratch: Scratch,
) -> Observation:
    """The attention that the newest queries of this head's group paid to its tokens."""
    groups = len(sequence.retained.lengths)
    none = tokens.keys.new_empty(groups, 0, tokens.keys.shape[-1])
    queries, lse = sequence.queries.columns() or (none, none[..., 0].float())
    rows = queries.shape[0] // groups
    group = slice(head * rows, (head + 1) * rows)
    return Observation(
        queries=queries[group],
        lse=lse[group],
        keys=tokens.keys,
        positions=tokens.positions,
        scale=sequence.scale,
        query_stop=sequence.seen,
        new_start=sequence.compacted_at,
        rotation=rotation,
        scratch=scratch,
    )


def _score(sequence: LayerSequence, layer: ManagedLayer, stage: _Stage) -> _Scored:
    """All tokens with the policy's new state, and their scores."""
    policy = sequence.config.policy
    with stage("compact"):
        heads = gather(sequence)
    if not policy.evicts:
        return heads, []
    if not isinstance(policy, ObservingPolicy):
        assert isinstance(policy, ScorePolicy)
        with stage("score"):
            return heads, [policy.score(head.floats()) for head in heads]
    scores, scratch = [], Scratch()
    for index, head in enumerate(heads):
        with stage("observe"):
            # one head at a time: a quantised cache never stands beside a float copy of itself
            tokens = head.floats()
            observation = observe(sequence, index, tokens, layer.rotation, scratch)
            state = policy.update_state(tokens, observation).to(policy.state_dtype)
        heads[index] = replace(head, state=state)
        if not policy.scores_layer_at_once:
            with stage("score"):
                scores.append(policy.score(replace(tokens, state=state), observation))
    if policy.scores_layer_at_once:
        with stage("score"):
            scores = policy.score_layer(heads, sequence.seen, layer.index)
    return heads, scores


def _select(
    sequences: Sequence[LayerSequence], scored: Sequence[_Scored], num_layers: int
) -> list[list[Tensor | None]]:
    """Which tokens of each KV head of each layer stay; the layers may be on several devices."""
    sequence, (first, _) = sequences[0], scored[0]
    device = scored[0][1][0].device
    kept = iter(
        select_tokens(
            sequence.config,
            [score.to(device) for _, scores in scored for score in scores],
            [head.positions.to(device) for heads, _ in scored for head in heads],
            sequence.seen,
            sequence.token_cost(first[0].token_nbytes, num_layers),
        )
    )
    return [
        [None if k is None else k.to(head.positions.device) for head, k in zip(heads, kept)]  # noqa: B905
        for heads, _ in scored
    ]


def select_tokens(
    config: CacheConfig,
    scores: Sequence[Tensor],
    positions: Sequence[Tensor],
    seen: int,
    cost: TokenCost,
) -> list[Tensor | None]:
    """Ascending indices of the tokens that stay, for each KV head; None where all stay.

    scores, positions: `[N_g]` for each of the heads that share a budget. seen: tokens of the
    sequence so far.
    """
    limit = None if config.budget is None else config.budget.tokens(seen, cost)
    forced = [_protected(config, at, seen, limit) for at in positions]
    if limit is None:
        assert config.policy.threshold is not None
        rule = by_padded_threshold if config.budget_scope == "padded" else by_threshold
        kept = rule(scores, forced, config.policy.threshold)
    elif config.budget_scope == "head":
        kept = [by_budget([s], [f], limit)[0] for s, f in zip(scores, forced, strict=True)]
    else:
        floor = max(config.head_floor, config.policy.head_floor)
        forced = with_floor(scores, forced, int(floor * limit))
        kept = by_budget(scores, forced, limit * len(scores))
    return [None if len(k) == len(s) else k for k, s in zip(kept, scores, strict=True)]


def _protected(config: CacheConfig, positions: Tensor, seen: int, limit: int | None) -> Tensor:
    """Which tokens stay whatever their score, bool `[N]`."""
    policy = config.policy
    sinks = policy.sinks if config.sinks is None else config.sinks
    newest = config.protect_recent
    if newest is None:
        newest = 0 if limit is None else policy.protect_recent(limit)
    # no attention has been paid to the newest token yet
    forced = (positions >= seen - max(newest, 1)) | (positions < sinks)
    for start, end in config.protected:
        forced |= (positions >= start) & (positions < end)
    return forced


def _compact(
    sequence: LayerSequence, heads: Sequence[HeadTokens], keep: Sequence[Tensor | None]
) -> None:
    """Make the tokens `keep` the retained ones and empty the window, in one gather."""
    sequence.retained = backend.gather(heads, keep)
    sequence.window.keep_last(0)
    sequence.queries.keep_last(sequence.config.policy.num_carried_queries(sequence.seen))
    sequence.compacted_at = sequence.seen
    sequence.eviction_steps += 1


def set_state(sequence: LayerSequence, state: Tensor) -> None:
    """Give the retained tokens another state `[S, W]` of the policy; all of them stay."""
    sequence.retained = replace(sequence.retained, state=state)


def _untimed(name: str) -> AbstractContextManager[None]:
    return nullcontext()


def _synchronize() -> None:
    """A GPU works on after the call has come back."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
