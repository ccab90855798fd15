"""The cache of one layer for one sequence: retained tokens, window tokens, and the update that
turns the one into the other.

`extend` takes new tokens in pieces that end where an update is due, so that the result does not
depend on how the caller cuts its chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from namm_llm.attention import backend as kernels
from namm_llm.attention.grouped import grouped_attention
from namm_llm.attention.observation import Observation
from namm_llm.attention.rope import Rotation
from namm_llm.attention.scratch import Scratch
from namm_llm.cache.timing import stage
from namm_llm.cache.window import Rows
from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError
from namm_llm.policies.budget import Room
from namm_llm.tokens import HeadTokens, RaggedTokens


@dataclass(frozen=True)
class ScoredHeads:
    """VarlenTokens `[G]` with their new state, and their scores `[G]` of `[N_g]` each (empty if the
    policy never evicts).
    """

    segments: list[HeadTokens]
    scores: list[Tensor]


@dataclass(frozen=True)
class ProbeQueries:
    """What probes asked in a layer: rotated queries `[H, Q, D]` and their log-sum-exp `[H, Q]`."""

    queries: Tensor
    lse: Tensor


@dataclass
class LayerSequence:
    """eviction: its own settings. retained: judged tokens, shared by forks. window: keys and values
    `[G, C, D]` since the last update. queries: rotated queries `[H, Q, D]` and their log-sum-exp
    `[H, Q]`, only if the policy observes. seen: tokens that went through. compacted_at: `seen` at
    the last update. scale: factor of the attention logits.
    """

    eviction: CacheConfig
    retained: RaggedTokens
    scale: float
    window: Rows = field(default_factory=Rows)
    queries: Rows = field(default_factory=Rows)
    seen: int = 0
    compacted_at: int = 0
    updates: int = 0

    def fork(self) -> LayerSequence:
        """The same tokens; the retained ones shared, the window ones copied."""
        return replace(self, window=self.window.copy(), queries=self.queries.copy())

    def to(self, device: torch.device) -> LayerSequence:
        """The same on another device, for instance after loading from a file."""
        retained = RaggedTokens(
            **{name: t.to(device) for name, t in self.retained.tensors().items()},
            lengths=self.retained.lengths,
        )
        return replace(
            self, retained=retained, window=self.window.to(device), queries=self.queries.to(device)
        )

    def due(self) -> int:
        """Tokens until the next update, which comes at a multiple of the interval."""
        return self.eviction.interval - self.seen % self.eviction.interval

    def extend(
        self, query: Tensor, keys: Tensor, values: Tensor, on_due: Callable[[LayerSequence], None]
    ) -> Tensor:
        """Append keys and values `[G, T, D]`, attend with queries `[H, T, D]`; `on_due` is called
        wherever an update falls due.
        """
        out = query.new_empty(*query.shape[:2], values.shape[-1])
        start, interval = 0, self.eviction.interval
        while start < query.shape[1]:
            if self.seen - self.compacted_at >= interval:
                raise CacheError(
                    "a budget shared by the whole model, and probes, need every layer at the same token: read in chunks that end at "
                    f"multiples of {interval} (generation_config.prefill_chunk_size={interval}), one sequence at a time"
                )
            piece = slice(start, min(query.shape[1], start + self.due()))
            out[:, piece] = self._attend(query[:, piece], keys[:, piece], values[:, piece])
            start = piece.stop
            if self.seen % interval == 0:
                on_due(self)
        return out

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        eviction = self.eviction
        self.window.append(keys, values, limit=eviction.interval)
        out, lse = grouped_attention(query, self.retained, *self.window.columns(), scale=self.scale)
        if eviction.policy.observes:
            self.queries.append(
                query, lse, limit=eviction.interval + eviction.policy.carry(self.compacted_at)
            )
        self.seen += query.shape[1]
        return out

    def judge(
        self, rotation: Rotation | None = None, heard: ProbeQueries | None = None
    ) -> ScoredHeads:
        """All tokens with the policy's new state and scores, nothing evicted yet. rotation: the
        model's, for a policy that reads again. heard: of the probes that were run for this update.
        """
        policy = self.eviction.policy
        if not policy.evicts:
            return ScoredHeads(self._all_segments(), [])
        with stage("compact"):
            joined = self._all_segments()
        segments, scores, scratch = [], [], Scratch()
        for head, segment in enumerate(joined):
            with stage("observe"):
                # one head at a time: a quantised cache never stands beside a whole copy of itself
                shown = segment.floats()
                observation = (
                    self._observe(shown, head, rotation, scratch, heard)
                    if policy.observes
                    else None
                )
                state = policy.update(shown, observation).to(policy.state_dtype)
            segments.append(replace(segment, state=state))
            if not policy.scores_layer_at_once:
                with stage("score"):
                    scores.append(policy.score(replace(shown, state=state), observation))
        if policy.scores_layer_at_once:
            with stage("score"):
                scores = policy.score_layer(segments, self.seen)
        states = [
            policy.remember(segment.state, own)
            for segment, own in zip(segments, scores, strict=True)
        ]
        return ScoredHeads(
            [
                replace(segment, state=state)
                for segment, state in zip(segments, states, strict=True)
            ],
            scores,
        )

    def settle(self, segments: list[HeadTokens], keep: list[Tensor | None]) -> None:
        """Move window into retained, evicting all tokens but `keep`, in one gather."""
        with stage("compact"):
            self.retained = kernels.gather(segments, keep)
            self.window.keep_last(0)
            self.queries.keep_last(self.eviction.policy.carry(self.seen))
        self.compacted_at = self.seen
        self.updates += 1

    def drop_last(self, count: int) -> None:
        """Take back the newest tokens, all of them window."""
        self.window.drop_last(count)
        self.queries.drop_last(count)
        self.seen -= count

    def _all_segments(self) -> list[HeadTokens]:
        if not self.window.count:
            return self.retained.segments()
        keys, values = self.window.columns()
        positions = torch.arange(
            self.compacted_at, self.seen, dtype=torch.int32, device=keys.device
        )
        state = self.retained.state.new_zeros(self.window.count, self.retained.state.shape[1])
        new = (
            HeadTokens(key, value, positions, state)
            for key, value in zip(keys, values, strict=True)
        )
        is_quantised = self.retained.scales is not None
        return [
            old.join(s.quantised() if is_quantised else s)
            for old, s in zip(self.retained.segments(), new, strict=True)
        ]

    def _observe(
        self,
        segment: HeadTokens,
        head: int,
        rotation: Rotation | None,
        scratch: Scratch,
        heard: ProbeQueries | None,
    ) -> Observation:
        queries, lse = self.queries.columns()
        rows = queries.shape[0] // len(self.retained.lengths)
        group = slice(head * rows, (head + 1) * rows)
        observation = Observation(
            queries=queries[group],
            lse=lse[group],
            keys=segment.keys,
            positions=segment.positions,
            scale=self.scale,
            stop=self.seen,
            fresh=self.compacted_at,
            rotation=rotation,
            scratch=scratch,
        )
        if heard is None:
            return observation
        probes, stop = heard.queries[group], self.seen + heard.queries.shape[1]
        asked = replace(
            observation,
            queries=probes,
            lse=heard.lse[group],
            stop=stop,
            fresh=self.seen,
            rotation=None,
        )
        return replace(observation, probes=asked)

    def stored(self) -> int:
        """Tokens kept, summed over the KV heads."""
        return sum(self.retained.lengths) + self.window.count * len(self.retained.lengths)

    def tensors(self) -> list[Tensor]:
        """Every tensor that is held, empty room included."""
        return [*self.retained.tensors().values(), *self.window.tensors(), *self.queries.tensors()]

    def room(self, segment: HeadTokens, layers: int) -> Room:
        """What the sequence costs at most in `layers` layers like this one; segment: any of its
        judged heads.
        """
        row = sum(
            column[:, 0].nbytes for rows in (self.window, self.queries) for column in rows.columns()
        )
        most = self.eviction.interval + self.eviction.policy.carry(self.seen)
        return Room(segment.token_nbytes, layers * len(self.retained.lengths), layers * row * most)
