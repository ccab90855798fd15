"""The attention that stored tokens received: the kernels against the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_llm.attention.fold import Sum
from namm_llm.attention.observation import Observation
from namm_llm.attention.rope import Rotation
from namm_llm.namm import Spectrogram
from tests.attention.triton.conftest import draw, matrix

kernels = pytest.importorskip("namm_llm.attention.triton.observe")
replay = pytest.importorskip("namm_llm.attention.triton.replay")


def observe(
    length: int,
    rows: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    count: int = 48,
    seen: int = 1000,
):
    """An observation of `length` tokens, the last ones as new as the last queries; log-sum-exps as
    if other tokens had been there too.
    """
    queries, keys = (
        draw(rows, count, size, device=device, dtype=dtype),
        draw(length, size, device=device, dtype=dtype, seed=1),
    )
    scale = size**-0.5
    logits = queries.float() @ keys.float().T * scale
    lse = draw(rows, count, device=device, seed=2)
    lse.copy_(logits.logsumexp(-1) + 0.3)
    gaps = torch.arange(length - 1, -1, -1, device=device) * 3 // 2
    positions = (seen - 1 - gaps).int()
    rotation = Rotation(tuple(10_000 ** (-i / (size // 2)) for i in range(size // 2)))
    return Observation(
        queries,
        lse,
        keys,
        positions,
        scale,
        query_stop=seen,
        new_start=seen - count + 16,
        rotation=rotation,
    )


def fold(
    observation: Observation, settings: Spectrogram, state: torch.Tensor, start: int, stop: int
):
    """The spectrogram's kernel, with the arguments that an observation hands it."""
    arguments = settings.kernel_arguments(state.device)
    return kernels.spectrogram(observation, state, start=start, stop=stop, **arguments)


@matrix
def test_total(length, rows, size, dtype, device):
    observation = observe(length, rows, size, dtype, device)
    start, stop = observation.new_start + 3, observation.query_stop - 2  # not whole tiles
    state = torch.rand(len(observation.keys), 1, device=device)
    found = kernels.total(observation, state, start=start, stop=stop)
    expected = Sum().update(state, observation.rows(start, stop))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@matrix
def test_spectrogram(length, rows, size, dtype, device):
    observation = observe(length, rows, size, dtype, device, seen=1008)
    settings = Spectrogram(decay=0.9)
    ema = torch.rand(length, settings.bins, generator=torch.Generator().manual_seed(3)).to(device)
    start, stop = observation.new_start, observation.query_stop
    expected = settings.update(ema, observation.rows(start - 16, stop))
    found = fold(observation, settings, ema, start, stop)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [7, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_groups_of_any_size(rows, dtype, device):
    """Query heads are worked on a few at a time, so that tiles fit into shared memory; 7 and 12
    fill the last tile in part.
    """
    observation = observe(33, rows, 64, dtype, device, seen=1008)
    start, stop = observation.new_start, observation.query_stop
    state = torch.rand(len(observation.keys), 1, device=device)
    found = kernels.total(observation, state, start=start, stop=stop)
    expected = Sum().update(state, observation.rows(start, stop))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    settings, ema = Spectrogram(), torch.zeros(33, Spectrogram().bins, device=device)
    expected = settings.update(ema, observation.rows(start - 16, stop))
    found = fold(observation, settings, ema, start, stop)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_bins", [1, 5, None])
@pytest.mark.parametrize("seen", [20, 40])
def test_spectrogram_at_the_text_s_beginning(num_bins, seen, device):
    """The queries before the text are none: their attention is 0."""
    count = seen // 16 * 16
    observation = observe(9, 2, 64, torch.float32, device, count=seen, seen=seen)
    observation = replace(
        observation, positions=torch.arange(9, device=device, dtype=torch.int32), new_start=0
    )
    settings = Spectrogram(num_bins=num_bins)
    ema = torch.zeros(9, settings.bins, device=device)
    expected = settings.update(ema, observation.rows(-16, count))
    found = fold(observation, settings, ema, 0, count)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def replayed(observation: Observation, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel's result, and the definition written out: every query, every token, the largest
    share of each.
    """
    known = observation.queries[:, start - observation.query_start :]
    turned = observation.rotation.turn(known, observation.query_stop - observation.new_start)
    logits = turned @ observation.keys.float().T * observation.scale
    found = replay.max_attention(turned, observation.keys, scale=observation.scale)
    return found, logits.softmax(-1).amax((0, 1))


@matrix
def test_largest_replayed_attention(length, rows, size, dtype, device):
    observation = observe(length, rows, size, dtype, device)
    found, expected = replayed(observation, observation.new_start - 5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_largest_replayed_attention_in_parts(device, monkeypatch):
    """The first pass cuts the keys into parts that are worked on in parallel."""
    monkeypatch.setattr(replay, "_PART", 64)
    observation = observe(150, 2, 64, torch.float32, device)
    found, expected = replayed(observation, observation.new_start)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
