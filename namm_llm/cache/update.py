"""One eviction step: gather, observe, score, select, compact. Tokens leave the cache only here.

gather    retained tokens and window of every KV head
observe   the policy updates its state from the attention that the newest queries paid
score     the policy scores every token
select    budget or threshold, and protected tokens: which ones stay
compact   these are moved into new storage, and where positions are compact to their next
          positions; everything else is freed
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
from namm_llm.cache.select import select_tokens
from namm_llm.cache.sequence import LayerSequence
from namm_llm.policies.base import ObservingPolicy, ScorePolicy
from namm_llm.tokens import HeadTokens

STAGES = ("observe", "score", "select", "compact")  # gathering is counted as compacting
_Stage = Callable[[str], AbstractContextManager[None]]
_Parts = list[HeadTokens]  # retained tokens of a KV head, then those of the window
_Scored = tuple[list[_Parts], list[Tensor]]


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
            kept = _select(sequences, scored, num_layers, layers[0].room(sequences[0]))
    scored.reverse()
    for layer, sequence, keep in zip(layers, sequences, kept, strict=True):
        heads, scores = scored.pop()  # the tokens of a layer are freed before the next one's move
        if on_eviction is not None:
            joined = [HeadTokens.joined(parts) for parts in heads]
            on_eviction(EvictionEvent(layer.index, row, sequence.seen, joined, scores, keep))
        with stage("compact"):
            _compact(sequence, layer, heads, keep)


def gather(sequence: LayerSequence, layer: ManagedLayer | None = None) -> list[_Parts]:
    """All tokens of every KV head, those of the window with a state of 0; with unrotated keys where
    their positions will be compact and their type has not the digits to turn them every time.

    Nothing is copied: where all layers share a budget, tokens of all of them would stand twice.
    """
    heads = [[head] for head in sequence.retained.heads()]
    if sequence.window.count:
        keys, values = sequence.window.columns()
        start, stop = sequence.compacted_at, sequence.seen
        positions = torch.arange(start, stop, dtype=torch.int32, device=keys.device)
        state = sequence.retained.state.new_zeros(stop - start, sequence.retained.state.shape[1])
        for parts, k, v in zip(heads, keys, values, strict=True):
            parts.append(HeadTokens(k, v, positions, state))
    if layer and layer.compact is not None and layer.start_after(sequence) is not None:
        low = sequence.retained.scales is not None or sequence.retained.dtype != torch.float32
        for parts, at in zip(heads, sequence.key_positions() if low else (), strict=False):
            ends = torch.split(at, [len(part) for part in parts])
            parts[:] = map(layer.compact.with_unrotated, parts, ends)
    if sequence.retained.scales is not None:
        for parts in heads:
            parts[1:] = [part.quantised() for part in parts[1:]]
    return heads


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
        heads = gather(sequence, layer)
    if not policy.evicts:
        return heads, []
    if not isinstance(policy, ObservingPolicy):
        assert isinstance(policy, ScorePolicy)
        with stage("score"):
            return heads, [policy.score(HeadTokens.joined(parts).floats()) for parts in heads]
    scores, scratch = [], Scratch()
    for index, parts in enumerate(heads):
        with stage("observe"):
            # one head at a time: a quantised cache never stands beside a float copy of itself
            tokens = HeadTokens.joined(parts).floats()
            observation = observe(sequence, index, tokens, layer.rotation, scratch)
            state = policy.update_state(tokens, observation).to(policy.state_dtype)
            own = torch.split(state, [len(part) for part in parts])
            parts[:] = [replace(part, state=s) for part, s in zip(parts, own, strict=True)]
        if not policy.scores_layer_at_once:
            with stage("score"):
                scores.append(policy.score(replace(tokens, state=state), observation))
    if policy.scores_layer_at_once:
        with stage("score"):
            whole = [HeadTokens.joined(parts) for parts in heads]
            scores = policy.score_layer(whole, sequence.seen, layer.index)
    return heads, scores


def _select(
    sequences: Sequence[LayerSequence], scored: Sequence[_Scored], num_layers: int, room: int | None
) -> list[list[Tensor | None]]:
    """Which tokens of each KV head of each layer stay; the layers may be on several devices."""
    sequence, (first, _) = sequences[0], scored[0]
    device = scored[0][1][0].device
    kept = iter(
        select_tokens(
            sequence.config,
            [score.to(device) for _, scores in scored for score in scores],
            [
                torch.cat([part.positions for part in parts]).to(device)
                for heads, _ in scored
                for parts in heads
            ],
            sequence.seen,
            sequence.token_cost(first[0][0].token_nbytes, num_layers),
            room,
        )
    )
    return [
        [None if k is None else k.to(parts[0].positions.device) for parts, k in zip(heads, kept)]  # noqa: B905
        for heads, _ in scored
    ]


def _compact(
    sequence: LayerSequence,
    layer: ManagedLayer,
    heads: Sequence[_Parts],
    keep: Sequence[Tensor | None],
) -> None:
    """Make the tokens `keep` the retained ones and empty the window, in one gather; where positions
    are compact, turn keys and carried queries to those that come next.
    """
    start = layer.start_after(sequence)
    was, end = sequence.key_positions() if start is not None else [], sequence.next_position
    retained = backend.gather(heads, keep)
    sequence.window.keep_last(0)
    sequence.queries.keep_last(sequence.config.policy.num_carried_queries(sequence.seen))
    if start is not None and layer.compact is not None:
        kept = [at if k is None else at[k] for at, k in zip(was, keep, strict=True)]
        retained = layer.compact.compacted(retained, kept, sequence.seen, start)
        for queries in sequence.queries.columns()[:1]:
            queries.copy_(layer.compact.rotation.turn(queries, start - end))
    sequence.retained, sequence.window_start = retained, start
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
