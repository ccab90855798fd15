"""The policy `namm` in reference mode, end to end, against numeric outputs of the published code
(see tests/namm/golden).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from namm_llm.attention.observation import Observation
from namm_llm.cache.select import select_tokens
from namm_llm.config import make_cache_config
from namm_llm.namm import Namm
from namm_llm.policies import NammPolicy
from namm_llm.policies.budget import TokenCost
from namm_llm.tokens import HeadTokens, RaggedTokens

GOLDEN = Path(__file__).parents[1] / "namm" / "golden" / "namm_threshold.npz"
HEADS, NEW = 2, 512


def logits_of(update: int, kept: int) -> torch.Tensor:
    """Attention logits `[4, 512, kept + 512]` of the published run, as its description regenerates
    them.
    """
    draw = np.random.default_rng(1000 + update).standard_normal((2 * HEADS, NEW, kept + NEW))
    return torch.from_numpy((3.0 * draw).astype(np.float32))


def observe(
    queries: list[torch.Tensor], lse: list[torch.Tensor], positions: torch.Tensor, stop: int
) -> Observation:
    """Queries whose products with the keys, unit vectors, are the given logits `[R, T, N]`."""
    return Observation(
        torch.cat(queries, 1),
        torch.cat(lse, 1),
        torch.eye(len(positions)),
        positions,
        1.0,
        query_stop=stop,
        new_start=stop - NEW,
    )


def test_features_scores_and_selection_of_every_update():
    golden = np.load(GOLDEN)
    namm = Namm.from_vector(*(torch.from_numpy(golden[name]) for name in ("theta", "mean", "var")))
    eviction = make_cache_config(NammPolicy(namm, exact=True), budget_scope="padded")
    policy = eviction.policy
    retained = RaggedTokens.empty(torch.zeros(HEADS, 0, 1), policy.state_width, policy.state_dtype)
    carried = [(torch.zeros(2, 0, 0), torch.zeros(2, 0))] * HEADS
    for update in range(4):
        stop = NEW * (update + 1)
        logits = logits_of(update, retained.longest)
        future = torch.ones(NEW, NEW, dtype=torch.bool).triu(1)
        logits[:, :, retained.longest :].masked_fill_(
            future, -1e4
        )  # finite: 0 attention for a query, whatever its sum
        segments, scores = [], []
        for head, old in enumerate(retained.heads()):
            own = logits[2 * head : 2 * head + 2]
            positions = torch.cat(
                [old.positions, torch.arange(stop - NEW, stop, dtype=torch.int32)]
            )
            before, before_lse = carried[head]
            queries = torch.cat(
                [torch.nn.functional.pad(before, (0, len(positions) - before.shape[2])), own], 1
            )
            observation = observe([queries], [before_lse, own.logsumexp(-1)], positions, stop)
            state = torch.cat([old.state, torch.zeros(NEW, policy.state_width)])
            segment = HeadTokens(
                torch.zeros(len(positions), 1), torch.zeros(len(positions), 1), positions, state
            )
            state = policy.update_state(segment, observation)
            segment = HeadTokens(segment.keys, segment.values, positions, state)
            features = namm.features(state, stop - 1 - positions)
            np.testing.assert_allclose(features, golden[f"emb{update}"][head], atol=2e-5, rtol=0)
            scores.append(policy.score(segment, observation))
            np.testing.assert_allclose(
                scores[-1], golden[f"score{update}"][head], atol=5e-5, rtol=0
            )
            segments.append(segment)
            carried[head] = (own[:, -16:], own.logsumexp(-1)[:, -16:])
        keep = select_tokens(
            eviction, scores, [segment.positions for segment in segments], stop, TokenCost(1, 1, 0)
        )
        for head in range(HEADS):
            assert keep[head].tolist() == golden[f"ret{update}"][head].tolist()
            before, lse = carried[head]
            carried[head] = (
                before[:, :, keep[head]],
                lse,
            )  # what was paid to the evicted tokens stays in the sum
        retained = RaggedTokens.gather(segments, keep)
        for head, segment in enumerate(retained.heads()):
            assert segment.positions.tolist() == golden[f"pos{update}"][head].tolist()
