"""Features that need no RoPE and know no length: what newer tokens repeat, and where a token stands
among the tokens of its head.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from namm_llm.errors import NammFileError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.namm.novelty import repeated

SETTINGS = NammSettings(
    Spectrogram(n_fft=8, hop=4), Recency(0), novelty=True, relative=True, mlp_hidden=3
)


def drawn(tokens: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """State `[N, 7]` and ages `[N]`."""
    generator = torch.Generator().manual_seed(seed)
    averages = torch.rand(tokens, 5, generator=generator) * 0.02 + 1e-3
    similar = 2 * torch.rand(tokens, 2, generator=generator) - 1
    return torch.cat([averages, similar], 1), torch.arange(tokens - 1, -1, -1)


def namm() -> Namm:
    zeros = Namm.zeros(0, SETTINGS)
    generator = torch.Generator().manual_seed(1)
    return replace(zeros, theta=torch.randn(zeros.theta.shape, generator=generator))


def test_repeated_is_the_largest_cosine_to_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("namm_llm.namm.novelty._BLOCK", 7)
    vectors = torch.randn(31, 6, generator=torch.Generator().manual_seed(0))
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    expected = [float(cosines[at, at + 1 :].max()) for at in range(30)]
    assert repeated(vectors).tolist() == pytest.approx([*expected, -1.0], abs=1e-5)


def test_attention_of_any_scale_and_model_gives_the_same_features() -> None:
    state, ages = drawn(40)
    other = torch.cat([7.0 * state[:, :5], state[:, 5:]], 1)
    found, scaled = (namm().features(each, ages) for each in (state, other))
    assert found.shape == (40, SETTINGS.feature_count) == (40, 8)
    assert torch.allclose(found, scaled, atol=1e-4)
    assert torch.allclose(found[:, 0], ages / 40)
    assert found[:, 1:].mean(0).abs().max() < 1e-5
    assert torch.allclose(found[:, 1:].square().mean(0), torch.ones(7), atol=1e-4)


def test_heads_side_by_side_are_as_each_alone() -> None:
    heads = [drawn(40), drawn(0), drawn(23, seed=1)]
    state, ages = (torch.cat(parts) for parts in zip(*heads, strict=True))
    together = namm().features(state, ages, [40, 0, 23], 50)
    alone = torch.cat([namm().features(*head, span=50) for head in heads])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_head_of_equal_tokens_has_finite_scores() -> None:
    state = drawn(1)[0].expand(9, -1)
    scores = namm().scores(namm().features(state, torch.arange(8, -1, -1)))
    assert scores.isfinite().all()


def test_the_settings_are_kept_in_the_file(tmp_path: Path) -> None:
    namm().save(tmp_path / "n.safetensors")
    opened = Namm.load(tmp_path / "n.safetensors")
    assert opened.settings == SETTINGS
    assert opened == namm()


def test_neighbours_of_a_relative_namm_are_refused() -> None:
    with pytest.raises(NammFileError, match="neighbours of a relative NAMM"):
        NammSettings(replay=True, neighbour_radius=4, relative=True)
