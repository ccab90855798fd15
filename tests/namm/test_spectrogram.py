"""Streaming hops against the definition: `torch.stft`, then the moving average."""

import pytest
import torch
from torch import Tensor

from namm_llm.errors import NammFileError
from namm_llm.namm import Spectrogram, spectrogram


def attention(queries: int, tokens: int, seed: int = 0) -> Tensor:
    """[queries, tokens], causal for the last `queries` tokens."""
    logits = 3.0 * torch.randn(queries, tokens, generator=torch.Generator().manual_seed(seed))
    future = torch.ones(queries, tokens, dtype=torch.bool).triu(tokens - queries + 1)
    return logits.masked_fill(future, -torch.inf).softmax(-1)


def with_carry(rows: Tensor, hop: int = 16) -> Tensor:
    return torch.cat([torch.zeros(hop, rows.shape[1]), rows])


def by_definition(settings: Spectrogram, ema: Tensor, rows: Tensor) -> Tensor:
    """`torch.stft` over all rows at once, then the moving average frame by frame, in float64."""
    window = torch.hann_window(settings.n_fft, periodic=True, dtype=torch.float64)
    frames = torch.stft(
        rows.double().T,
        settings.n_fft,
        settings.hop,
        window=window,
        center=False,
        onesided=True,
        return_complex=True,
    ).abs()  # [N, bins, h]
    decay, ema = settings.decay**settings.hop, ema.double()
    for frame in frames.unbind(-1):
        ema = decay * ema + (1 - decay) * frame
    return ema


@pytest.mark.parametrize("tokens", [1, 63, 111, 1000])
@pytest.mark.parametrize("hops", [1, 2, 32])
def test_streaming_is_stft_then_ema(tokens: int, hops: int) -> None:
    settings, before = (
        Spectrogram(),
        torch.rand(tokens, 17, generator=torch.Generator().manual_seed(1)),
    )
    rows = torch.rand(16 * (hops + 1), tokens, generator=torch.Generator().manual_seed(2))

    after = settings.update(before, rows)

    assert after.dtype == torch.float32
    assert (after - by_definition(settings, before, rows)).abs().max() < 1e-5


def test_other_settings() -> None:
    settings, rows = Spectrogram(n_fft=8, hop=4, decay=0.9), torch.rand(4 * 6, 7)

    after = settings.update(torch.zeros(7, 5), rows)

    assert (after - by_definition(settings, torch.zeros(7, 5), rows)).abs().max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_splitting_at_any_hop_changes_nothing(seed: int) -> None:
    settings, rows = Spectrogram(), with_carry(attention(16 * 12, 300, seed))
    whole = settings.update(torch.zeros(300, 17), rows)

    for split in range(13):
        border = 16 * (split + 1)
        first = settings.update(torch.zeros(300, 17), rows[:border])
        both = settings.update(first, rows[border - 16 :])
        torch.testing.assert_close(both, whole, rtol=0, atol=1e-7)


def test_blocks_of_hops_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, rows, before = Spectrogram(), with_carry(attention(16 * 7, 200)), torch.rand(200, 17)
    whole = settings.update(before, rows)

    for hops in (1, 2, 3):
        monkeypatch.setattr(spectrogram, "BLOCK_FLOATS", hops * 34 * 200)
        torch.testing.assert_close(settings.update(before, rows), whole, rtol=0, atol=1e-6)


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    magnitudes = Spectrogram._magnitudes

    def spy(self: Spectrogram, rows: Tensor) -> Tensor:
        blocks.append(len(rows) // 16 - 1)
        return magnitudes(self, rows)

    monkeypatch.setattr(Spectrogram, "_magnitudes", spy)
    Spectrogram().update(torch.zeros(10_000, 17), torch.zeros(16 * 9, 10_000))

    assert sum(blocks) == 8
    assert max(blocks) * 34 * 10_000 <= spectrogram.BLOCK_FLOATS


def test_no_complete_hop_changes_nothing() -> None:
    before = torch.rand(5, 17)

    assert torch.equal(Spectrogram().update(before, torch.rand(16, 5)), before)


def test_a_token_of_the_last_hop_weighs_little() -> None:
    """No bias correction: a young token's average is small because it is young."""
    rows = torch.zeros(16 * 4, 1)
    rows[-16:] = 1.0
    alone = Spectrogram().update(torch.zeros(1, 17), rows)

    zero_frequency = (0.5 * (1 - torch.cos(2 * torch.pi * torch.arange(16, 32) / 32))).sum()
    assert alone[0, 0].item() == pytest.approx((1 - 0.99**16) * zero_frequency.item(), rel=1e-5)


def test_half_precision_is_averaged_in_float32() -> None:
    rows = attention(16 * 6, 100).bfloat16()
    before = torch.rand(100, 17).half()

    with torch.autocast("cpu", torch.bfloat16):
        after = Spectrogram().update(before, rows)

    assert torch.equal(after, Spectrogram().update(before.float(), rows.float()))


def test_the_arguments_stay_as_they_are() -> None:
    before, rows = torch.rand(9, 17), torch.rand(64, 9)
    copies = before.clone(), rows.clone()

    Spectrogram().update(before, rows)

    assert torch.equal(before, copies[0])
    assert torch.equal(rows, copies[1])


def test_rows_may_be_a_view() -> None:
    rows = torch.rand(9, 64)

    strided = Spectrogram().update(torch.zeros(9, 17), rows.T)

    torch.testing.assert_close(
        strided, Spectrogram().update(torch.zeros(9, 17), rows.T.contiguous())
    )


def test_a_basis_made_in_inference_mode_serves_training() -> None:
    spectrogram.basis.cache_clear()
    with torch.inference_mode():
        Spectrogram().update(torch.zeros(3, 17), torch.rand(32, 3))

    rows = torch.rand(32, 3, requires_grad=True)
    Spectrogram().update(torch.zeros(3, 17), rows).sum().backward()

    assert rows.grad is not None
    assert rows.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop": 8}, "The spectrogram needs n_fft = 2 * hop, got n_fft 32 and hop 8."),
        ({"n_fft": 0, "hop": 0}, "The spectrogram needs n_fft = 2 * hop, got n_fft 0 and hop 0."),
        ({"decay": 1.0}, "The spectrogram's decay must be at least 0 and below 1, got 1.0."),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, float], message: str) -> None:
    with pytest.raises(NammFileError) as error:
        Spectrogram(**settings)  # type: ignore[arg-type]

    assert str(error.value) == message


@pytest.mark.parametrize("count", [0, 15, 17, 40])
def test_rows_that_are_no_whole_hops(count: int) -> None:
    with pytest.raises(AssertionError, match=f"{count} rows"):
        Spectrogram().update(torch.zeros(2, 17), torch.zeros(count, 2))
