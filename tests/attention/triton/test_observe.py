"""What was paid to stored tokens: the kernels against the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

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
        queries, lse, keys, positions, scale, stop=seen, fresh=seen - count + 16, rotation=rotation
    )


def known(observation: Observation):
    return observation.queries, observation.lse, observation.keys, observation.positions


def places(observation: Observation):
    return {"scale": observation.scale, "first": observation.first}


@matrix
def test_total(length, rows, size, dtype, device):
    observation = observe(length, rows, size, dtype, device)
    start, stop = observation.fresh + 3, observation.stop - 2  # not whole tiles
    found = kernels.total(*known(observation), **places(observation), start=start, stop=stop)
    torch.testing.assert_close(found, observation.rows(start, stop).sum(0), atol=1e-4, rtol=1e-4)


@matrix
def test_spectrogram(length, rows, size, dtype, device):
    observation = observe(length, rows, size, dtype, device, seen=1008)
    settings = Spectrogram(decay=0.9)
    ema = torch.rand(length, settings.bins, generator=torch.Generator().manual_seed(3)).to(device)
    peak = ema.clone().mul_(0.1)
    highest = peak.clone()
    expected = settings.update(
        ema, observation.rows(observation.fresh - 16, observation.stop), highest
    )
    found = kernels.spectrogram(
        settings,
        ema,
        peak,
        *known(observation),
        **places(observation),
        start=observation.fresh,
        stop=observation.stop,
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(peak, highest, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [7, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_groups_of_any_size(rows, dtype, device):
    """Query heads are worked on a few at a time, so that tiles fit into shared memory; 7 and 12
    fill the last tile in part.
    """
    observation = observe(33, rows, 64, dtype, device, seen=1008)
    start, stop = observation.fresh, observation.stop
    found = kernels.total(*known(observation), **places(observation), start=start, stop=stop)
    torch.testing.assert_close(found, observation.rows(start, stop).sum(0), atol=1e-4, rtol=1e-4)
    settings, ema = Spectrogram(), torch.zeros(33, Spectrogram().bins, device=device)
    expected = settings.update(ema, observation.rows(start - 16, stop))
    found = kernels.spectrogram(
        settings, ema, None, *known(observation), **places(observation), start=start, stop=stop
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lowest", [1, 5, None])
@pytest.mark.parametrize("seen", [20, 40])
def test_spectrogram_at_the_text_s_beginning(lowest, seen, device):
    """The queries before the text are none: their attention is 0."""
    count = seen // 16 * 16
    observation = observe(9, 2, 64, torch.float32, device, count=seen, seen=seen)
    observation = replace(
        observation, positions=torch.arange(9, device=device, dtype=torch.int32), fresh=0
    )
    settings = Spectrogram(lowest=lowest)
    ema = torch.zeros(9, settings.bins, device=device)
    expected = settings.update(ema, observation.rows(-16, count))
    found = kernels.spectrogram(
        settings, ema, None, *known(observation), **places(observation), start=0, stop=count
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def most(observation: Observation, start: int) -> torch.Tensor:
    """The kernel, on queries that are turned but not scaled."""
    asked = observation.queries[:, start - observation.first :]
    turned = observation.rotation.turn(asked, observation.stop - observation.fresh)
    return replay.most(turned, observation.keys, scale=observation.scale)


@matrix
def test_most_again(length, rows, size, dtype, device):
    observation = observe(length, rows, size, dtype, device)
    start = observation.fresh - 5
    expected = torch.cat(list(observation.again(start, observation.stop)), dim=1).amax((0, 1))
    found = most(observation, start)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_most_again_in_parts(device, monkeypatch):
    """The first pass cuts the keys into parts that are worked on in parallel."""
    monkeypatch.setattr(replay, "_PART", 64)
    observation = observe(150, 2, 64, torch.float32, device)
    expected = torch.cat(list(observation.again(observation.fresh, observation.stop)), dim=1).amax(
        (0, 1)
    )
    found = most(observation, observation.fresh)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
