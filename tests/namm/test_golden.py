"""Parity with the published algorithm: numeric outputs of the reference implementation for four
updates of one layer.

`golden/namm_threshold.npz`: 4 query heads, 2 KV heads, 512 queries an update, float32, threshold 0,
heads padded to the fullest. The attention is not in the file; it is made again from a seed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from namm_llm.namm import Namm

GOLDEN = Path(__file__).parent / "golden" / "namm_threshold.npz"
UPDATES, QUERIES, HOP = 4, 512, 16


def attention(update: int, old: int) -> Tensor:
    """[2, 512, old + 512]: mean over the query heads of each KV head; new keys are causal."""
    size = old + QUERIES
    logits = (
        3.0 * np.random.default_rng(1000 + update).standard_normal((4, QUERIES, size))
    ).astype(np.float32)
    future = np.zeros((QUERIES, size), bool)
    future[:, old:] = np.triu(np.ones((QUERIES, QUERIES), bool), 1)
    logits[:, future] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return torch.from_numpy(weights).unflatten(0, (2, 2)).mean(1)


def keep_padded(scores: Tensor) -> Tensor:
    """The reference's rule, [2, N] -> [2, kept]: score >= 0 or newest; the emptier head is filled
    with its best others.
    """
    ranks = scores.clone()
    ranks[:, -1] = torch.inf
    kept = int((ranks >= 0).sum(1).max())
    return ranks.topk(kept, dim=1).indices.sort(dim=1).values


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def replay(golden: dict[str, np.ndarray]) -> list[dict[str, Tensor]]:
    """Our features, scores and selection of each update, each built on our own selection of the one
    before.
    """
    namm = Namm.from_vector(golden["theta"], golden["mean"], golden["var"])
    steps = []
    ema, carry, positions = (
        torch.zeros(2, 0, 17),
        torch.zeros(2, HOP, 0),
        torch.zeros(2, 0, dtype=torch.long),
    )
    for update in range(UPDATES):
        rows = attention(update, positions.shape[1])
        born = update * QUERIES + torch.arange(QUERIES).expand(2, -1)
        positions = torch.cat([positions, born], dim=1)
        ema = torch.cat([ema, torch.zeros(2, QUERIES, 17)], dim=1)
        with_carry = torch.cat(
            [torch.cat([carry, torch.zeros(2, HOP, QUERIES)], dim=2), rows], dim=1
        )
        ema = torch.stack(
            [namm.settings.spectrogram.update(ema[head], with_carry[head]) for head in range(2)]
        )
        features = namm.features(ema, positions[:, -1:] - positions)
        scores = namm.scores(features)
        kept = keep_padded(scores)
        positions = positions.gather(1, kept)
        ema = ema.gather(1, kept[..., None].expand(-1, -1, 17))
        carry = rows[:, -HOP:].gather(2, kept[:, None].expand(-1, HOP, -1))
        steps.append({"emb": features, "score": scores, "ret": kept, "pos": positions})
    return steps


@pytest.mark.parametrize("update", range(UPDATES))
@pytest.mark.parametrize(
    ("key", "tolerance"), [("emb", 2e-5), ("score", 5e-5), ("ret", 0), ("pos", 0)]
)
def test_parity(
    golden: dict[str, np.ndarray],
    replay: list[dict[str, Tensor]],
    update: int,
    key: str,
    tolerance: float,
) -> None:
    ours, theirs = replay[update][key], torch.from_numpy(golden[f"{key}{update}"])

    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


def test_the_golden_scores_separate_the_heads(golden: dict[str, np.ndarray]) -> None:
    """Guards the fixture: with equal counts in both heads the padding would not be tested."""
    scores = [golden[f"score{update}"] for update in range(UPDATES)]
    counts = [((score >= 0).sum(1) + (score[:, -1] < 0)).tolist() for score in scores]

    assert counts == [[377, 382], [437, 430], [380, 394], [400, 417]]
