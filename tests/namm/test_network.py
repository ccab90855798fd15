"""`Namm`: features, scores, gradients and identity."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from namm_llm.errors import NammFileError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram
from namm_llm.namm.bam import BamWeights, bam
from namm_llm.namm.layout import attention_dim_of, parameter_count
from namm_llm.namm.recency import recency


def random_state(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """ema [*shape, 17] and ages [*shape] of tokens in order."""
    ema = 0.02 * torch.rand(*shape, 17, generator=torch.Generator().manual_seed(seed))
    return ema, torch.arange(shape[-1] - 1, -1, -1).expand(shape)


@pytest.mark.parametrize("tokens", [1, 2, 1000])
def test_zero_parameters_score_exactly_zero(tokens: int) -> None:
    namm = Namm.zeros()

    scores = namm.scores(namm.features(*random_state(3, tokens)))

    assert torch.equal(scores, torch.zeros(3, tokens))


def test_features_are_recency_then_the_normalised_spectrogram(
    make_namm: Callable[..., Namm],
) -> None:
    namm, (ema, ages) = make_namm(), random_state(50)

    features = namm.features(ema, ages)

    assert torch.equal(features[:, :8], recency(ages))
    for frequency in range(17):
        expected = (ema[:, frequency] - namm.mean[frequency]) / namm.variance[frequency].sqrt()
        torch.testing.assert_close(features[:, 8 + frequency], expected)


def test_a_frequency_that_never_varied_stays_finite() -> None:
    namm = Namm.from_vector(Namm.zeros().vector, torch.full((17,), 0.5), torch.zeros(17))

    features = namm.features(torch.full((1, 17), 0.5 + 1e-6), torch.tensor([0]))

    assert features[0, 8:].tolist() == pytest.approx([10.0] * 17, rel=0.1)  # 1e-6 / 1e-7


def test_the_layout_of_the_vector(make_namm: Callable[..., Namm]) -> None:
    """The slices that the published parameters use, written out."""
    namm, features = make_namm(), torch.randn(30, 25, generator=torch.Generator().manual_seed(3))
    theta = namm.vector
    weights = BamWeights(
        theta[:2400].view(25, 96), theta[2400:2496], theta[2496:4096].view(32, 50), theta[4096:4146]
    )

    expected = bam(features, weights) @ theta[4146:4171] + theta[4171]

    torch.testing.assert_close(namm.scores(features), expected)


@pytest.mark.parametrize("size", [1, 8, 32, 33])
def test_sizes_are_read_from_the_vector(make_namm: Callable[..., Namm], size: int) -> None:
    namm = make_namm(attention_dim=size)

    assert namm.attention_dim == size
    assert namm.scores(torch.zeros(5, 25)).shape == (5,)


def test_the_published_size() -> None:
    assert parameter_count(25, 32) == 4172
    assert attention_dim_of(4172, 25) == 32
    assert len(Namm.zeros().vector) == 4172


def test_other_settings_have_other_features() -> None:
    namm = Namm.zeros(settings=NammSettings(Spectrogram(n_fft=8, hop=4), Recency(size=2)))

    features = namm.features(torch.zeros(3, 5), torch.tensor([2, 1, 0]))

    assert namm.settings.feature_count == 7
    assert features.shape == (3, 7)
    assert namm.scores(features).shape == (3,)


def test_a_batch_scores_as_its_documents(make_namm: Callable[..., Namm]) -> None:
    namm, (ema, ages) = make_namm(), random_state(4, 2, 111)

    together = namm.scores(namm.features(ema, ages))

    for document in range(4):
        for head in range(2):
            alone = namm.scores(namm.features(ema[document, head], ages[document, head]))
            torch.testing.assert_close(together[document, head], alone, rtol=0, atol=1e-4)


def test_half_precision_state_and_autocast_still_score_in_float32(
    make_namm: Callable[..., Namm],
) -> None:
    namm, (ema, ages) = make_namm(), random_state(64)

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        scores = namm.scores(namm.features(ema.half(), ages))

    assert scores.dtype == torch.float32
    assert torch.equal(scores, namm.scores(namm.features(ema.half().float(), ages)))


def test_every_parameter_gets_its_gradient(make_namm: Callable[..., Namm]) -> None:
    start, (ema, ages) = make_namm(), random_state(2, 40)
    theta = torch.nn.Parameter(start.vector)
    namm = Namm.from_vector(theta, start.mean, start.variance)
    features = namm.features(ema, ages)

    namm.scores(features).square().sum().backward()

    assert namm.theta is theta
    assert theta.grad is not None
    # but for rounding, the bias of the keys has none: it moves all the logits of a query alike
    keys_bias = slice(2432, 2464)
    assert theta.grad[keys_bias].abs().max() < 1e-4 * theta.grad.abs().mean()
    theta.grad[keys_bias] = 1.0
    assert (theta.grad != 0).all()


def test_the_gradient_is_the_slope(make_namm: Callable[..., Namm]) -> None:
    start, (ema, ages) = make_namm(), random_state(40)
    theta = start.vector.requires_grad_()
    namm = Namm.from_vector(theta, start.mean, start.variance)
    features = namm.features(ema, ages)
    namm.scores(features).sum().backward()
    assert theta.grad is not None
    step = 1e-3 * theta.grad / theta.grad.norm()

    there = Namm.from_vector(start.vector + step, start.mean, start.variance).scores(features)
    back = Namm.from_vector(start.vector - step, start.mean, start.variance).scores(features)

    slope = (there.double() - back.double()).sum() / 2e-3
    assert slope.item() == pytest.approx(theta.grad.norm().item(), rel=0.02)


def test_a_training_step_learns(make_namm: Callable[..., Namm]) -> None:
    """What distillation does: the parameters follow a target by gradient, through one Namm for all
    the steps.
    """
    start, (ema, ages) = make_namm(), random_state(4, 64)
    theta = torch.nn.Parameter(0.1 * start.vector)
    student, teacher = Namm.from_vector(theta, start.mean, start.variance), start
    features = student.features(ema, ages)
    target = teacher.scores(features)
    optimizer = torch.optim.Adam([theta], lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (student.scores(features) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.3 * losses[0]


def test_vector_round_trip(make_namm: Callable[..., Namm]) -> None:
    namm = make_namm()

    again = Namm.from_vector(namm.vector, namm.mean, namm.variance)

    assert torch.equal(again.vector, namm.vector)
    assert again == namm
    assert hash(again) == hash(namm)


def test_numpy_vectors_are_copied() -> None:
    theta = np.zeros(4172)
    namm = Namm.from_vector(theta, np.zeros(17), np.ones(17))
    theta[:] = 1.0

    assert namm == Namm.zeros()


def test_a_changed_vector_does_not_change_the_namm(make_namm: Callable[..., Namm]) -> None:
    namm = make_namm()
    before = namm.fingerprint
    namm.vector.zero_()

    assert namm.fingerprint == before


def test_fingerprint_tells_every_difference_apart(make_namm: Callable[..., Namm]) -> None:
    namm = make_namm()
    nudged = namm.vector
    nudged[-1] += 1e-6
    others = [
        Namm.from_vector(nudged, namm.mean, namm.variance),
        Namm.from_vector(namm.vector, namm.mean + 1e-6, namm.variance),
        Namm.from_vector(namm.vector, namm.mean, namm.variance + 1e-6),
        Namm.from_vector(
            namm.vector, namm.mean, namm.variance, settings=NammSettings(Spectrogram(decay=0.98))
        ),
        Namm.from_vector(
            namm.vector,
            namm.mean,
            namm.variance,
            settings=NammSettings(recency=Recency(max_freq=10_000.0)),
        ),
    ]

    assert len({other.fingerprint for other in [namm, *others]}) == 6
    assert all(other != namm for other in others)


def test_identity_is_stable_and_short() -> None:
    """Caches on disk carry it: a change of this constant makes them all strangers."""
    assert (
        repr(Namm.zeros()) == "Namm(parameters=4172, attention_dim=32, fingerprint='41ef25831c27')"
    )
    assert Namm.zeros().to("cpu") == Namm.zeros()


@pytest.mark.parametrize("missing", ["theta", "mean", "variance"])
def test_missing_numbers_are_refused(missing: str) -> None:
    vectors = {
        "theta": torch.zeros(4172),
        "mean": torch.zeros(17),
        "variance": torch.ones(17),
        missing: None,
    }

    with pytest.raises(NammFileError) as error:
        Namm.from_vector(**vectors)  # type: ignore[arg-type]

    assert str(error.value) == (
        f"no {missing}: a NAMM needs its parameters and the statistics that they were trained with."
    )


@pytest.mark.parametrize(
    ("theta", "mean", "variance", "message"),
    [
        (
            4171,
            17,
            17,
            "wrong number of parameters: got 4171, expected 4172 (25 features, attention_dim 32).",
        ),
        (
            2026,
            17,
            17,
            "wrong number of parameters: got 2026, expected 4172 (25 features, attention_dim 32).",
        ),
        (
            76,
            17,
            17,
            "wrong number of parameters: got 76, expected 4172 (25 features, attention_dim 32).",
        ),
        (
            0,
            17,
            17,
            "wrong number of parameters: got 0, expected 4172 (25 features, attention_dim 32).",
        ),
        (4172, 16, 17, "wrong number of means and variances: got 16 and 17, expected 17 each."),
        (4172, 17, 0, "wrong number of means and variances: got 17 and 0, expected 17 each."),
    ],
)
def test_wrong_sizes_are_refused(theta: int, mean: int, variance: int, message: str) -> None:
    with pytest.raises(NammFileError) as error:
        Namm.from_vector(torch.zeros(theta), torch.zeros(mean), torch.ones(variance))

    assert str(error.value) == message


@pytest.mark.parametrize("name", ["theta", "mean", "variance"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(name: str, value: float) -> None:
    vectors = {"theta": torch.zeros(4172), "mean": torch.zeros(17), "variance": torch.ones(17)}
    vectors[name][3] = value

    with pytest.raises(NammFileError, match=f"^{name} has numbers that are not finite.$"):
        Namm.from_vector(**vectors)


def test_other_bad_vectors_are_refused() -> None:
    zeros, ones = torch.zeros(17), torch.ones(17)
    with pytest.raises(NammFileError, match=r"^variance has negative numbers.$"):
        Namm.from_vector(torch.zeros(4172), zeros, -ones)
    with pytest.raises(
        NammFileError, match=r"^theta must be a float32 vector, got torch.float32 \[2, 2086\].$"
    ):
        Namm.from_vector(torch.zeros(2, 2086), zeros, ones)
    with pytest.raises(
        NammFileError, match=r"^mean must be a float32 vector, got torch.float64 \[17\].$"
    ):
        Namm(torch.zeros(4172), zeros.double(), ones)
