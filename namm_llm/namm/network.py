"""`Namm`: the parameters, statistics and settings that turn what a token has seen into one score.

    state [..., N, W], ages [..., N]  --features-->  [..., N, d]  --scores-->  [..., N]

The published one has W = 17 and d = 8 + 17 = 25. It keeps no state, and does not decide what stays.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from namm_llm.errors import NammFileError
from namm_llm.namm import files
from namm_llm.namm.layout import ATTENTION_DIM, attention_dim_of, parameter_count
from namm_llm.namm.neighbours import neighbours, separated
from namm_llm.namm.recency import recency
from namm_llm.namm.reference import Member, read_reference
from namm_llm.namm.relative import relative_features
from namm_llm.namm.settings import PUBLISHED, SMALLEST_ATTENTION, NammSettings
from namm_llm.namm.weights import NammWeights

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_DEVIATION = 1e-7  # a feature that never varied must not divide by zero


@final
@dataclass(frozen=True, eq=False, repr=False)
class Namm:
    """A neural attention memory model (arXiv 2410.13166, section 3).

    Two are equal when all their numbers and settings are. All tensors are float32 on one device;
    `from_vector` converts. Raises NammFileError when a shape does not fit or a number is not
    finite.
    """

    theta: Tensor
    """Parameters `[P]` in the order of layout.py; `scores` is differentiable in it, so that it may
    be a `torch.nn.Parameter`.
    """
    mean: Tensor
    """Means `[W]` of the state (`NammSettings.scaled`) over many tokens."""
    variance: Tensor
    """Variances `[W]` of the same."""
    settings: NammSettings = PUBLISHED
    """What the state and the features are."""

    def __post_init__(self) -> None:
        for name, tensor in self._tensors().items():
            if tensor.ndim != 1 or tensor.dtype != torch.float32:
                raise NammFileError(
                    f"{name} must be a float32 vector, got {tensor.dtype} {list(tensor.shape)}."
                )
            if not tensor.isfinite().all():
                raise NammFileError(f"{name} has numbers that are not finite.")
        width = self.settings.state_width
        if not len(self.mean) == len(self.variance) == width:
            sizes = f"got {len(self.mean)} and {len(self.variance)}, expected {width} each"
            raise NammFileError(f"wrong number of means and variances: {sizes}.")
        if (self.variance < 0).any():
            raise NammFileError("variance has negative numbers.")
        # raises when no size gives that many parameters
        if self.attention_dim and self.settings.heads:
            raise NammFileError("heads of their own go with a NAMM without attention only.")

    # -- made and saved ----------------------------------------------------------------------------

    @classmethod
    def from_vector(
        cls,
        theta: Tensor | NDArray[Any],
        mean: Tensor | NDArray[Any],
        variance: Tensor | NDArray[Any],
        settings: NammSettings = PUBLISHED,
    ) -> Namm:
        """A NAMM of theta [P], mean and variance [W].

        Numpy arrays are copied, float32 tensors are used as they are.
        """
        return cls(
            _floats("theta", theta), _floats("mean", mean), _floats("variance", variance), settings
        )

    @classmethod
    def zeros(cls, attention_dim: int = ATTENTION_DIM, settings: NammSettings = PUBLISHED) -> Namm:
        """A NAMM whose scores are all exactly 0, so that the published rule (score >= 0) keeps
        every token.

        Its mean of 0 and variance of 1 are placeholders: they change nothing as long as theta is 0.
        """
        count = parameter_count(*_sizes(settings, attention_dim))
        width = settings.state_width
        return cls(torch.zeros(count), torch.zeros(width), torch.ones(width), settings)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Namm:
        """Read what `save` wrote, or a checkpoint of the reference (`*.pt`).

        Raises NammFileError, which names the file, when it cannot be used.
        """
        path = Path(path)
        if path.suffix == ".pt":
            return cls.import_reference(path)
        with files.named(path):
            return cls.from_parts(*files.read(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file of some 17 kB, all or nothing.

        Raises NammFileError when it cannot be written.
        """
        files.write(Path(path), *self.parts())

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The header with the fingerprint, ready for JSON, and the tensors by name: what a file
        holds.
        """
        return {"fingerprint": self.fingerprint, **self._header()}, self._tensors()

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Namm:
        """The inverse of `parts`. Raises NammFileError when they do not belong together."""
        if missing := [name for name in ("theta", "mean", "variance") if name not in tensors]:
            raise NammFileError(
                f"it has no {', no '.join(missing)}: train it again, or save it with its "
                "statistics."
            )
        known = {name: value for name, value in header.items() if name != "version"}
        try:
            attention_dim, fingerprint = int(known.pop("attention_dim")), known.pop("fingerprint")
        except (KeyError, TypeError, ValueError) as error:
            raise NammFileError("its header is damaged.") from error
        settings = NammSettings.from_header(known)
        got = tensors["theta"].numel()
        expected = parameter_count(*_sizes(settings, attention_dim))
        if got != expected:
            raise NammFileError(
                f"wrong number of parameters: got {got}, expected {expected} "
                f"(attention_dim {attention_dim})."
            )
        namm = cls.from_vector(tensors["theta"], tensors["mean"], tensors["variance"], settings)
        if namm.fingerprint != fingerprint:
            raise NammFileError(
                f"damaged: its numbers have fingerprint {namm.fingerprint}, its header says "
                f"{fingerprint}."
            )
        return namm

    @classmethod
    def import_reference(
        cls,
        path: str | os.PathLike[str],
        *,
        member: Member = "mean",
        settings: NammSettings = PUBLISHED,
    ) -> Namm:
        """Read a checkpoint of the reference implementation, without running any code in it (see
        `reference.py`).

        member: "mean" of the search distribution, which the paper evaluates, or "best" individual.
        settings: of that run, which its file does not hold. Raises NammFileError when the file
        cannot be used.
        """
        with files.named(Path(path)):
            parts = read_reference(Path(path), member)
            return cls.from_vector(parts["theta"], parts["mean"], parts["variance"], settings)

    # -- sizes and identity ------------------------------------------------------------------------

    @property
    def vector(self) -> Tensor:
        """A copy of the parameters [P], outside the graph of autograd."""
        return self.theta.detach().clone()

    @property
    def attention_dim(self) -> int:
        """Size of the attention's queries, keys and values, h; 0 for a NAMM without attention."""
        settings = self.settings
        return attention_dim_of(
            len(self.theta), settings.feature_count, settings.mlp_hidden, settings.heads
        )

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the SHA-256 of all numbers and settings."""
        # not cached: theta may be in training
        digest = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.detach().cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()[:12]

    def to(self, device: torch.device | str) -> Namm:
        """The same on another device."""
        theta, mean, variance = (tensor.to(device) for tensor in self._tensors().values())
        return replace(self, theta=theta, mean=mean, variance=variance)

    def with_statistics(self, mean: Tensor, variance: Tensor) -> Namm:
        """The same NAMM for other means and variances `[W]`, of any type and device."""
        return replace(self, mean=mean.to(self.mean), variance=variance.to(self.variance))

    def with_zero_at(self, score: float) -> Namm:
        """The same ranking with 0 where `score` was: tokens of that score or more are kept by the
        published rule.
        """
        theta = self.vector
        # the summands of the heads, or the bias of the linear score, which a hidden layer follows
        if self.settings.heads:
            theta[-self.settings.heads :] -= score
        else:
            theta[parameter_count(self.settings.feature_count, self.attention_dim) - 1] -= score
        return replace(self, theta=theta)

    # -- scoring -----------------------------------------------------------------------------------

    def features(
        self,
        state: Tensor,
        ages: Tensor,
        lengths: Sequence[int] | None = None,
        span: int | None = None,
    ) -> Tensor:
        """[recency | state | neighbours], of which the recency alone is not normalised (arXiv
        2410.13166, section 3, which has no neighbours); relative ones are in relative.py.

        state: [..., N, W], any float type: `Spectrogram.update`, then the replayed attention. ages:
        [..., N], in tokens; the newest token has 0. lengths: tokens of the heads that lie one after
        the other in [N, W]. span: above all ages; without it the host asks the device. Returns
        [..., N, d] in float32.
        """
        if self.settings.relative:
            return relative_features(self.settings, state, ages, lengths, span)
        deviation = self.variance.sqrt().clamp_min(SMALLEST_DEVIATION)
        known = (self.settings.scaled(state) - self.mean) / deviation
        parts = [recency(ages, self.settings.recency), known]
        if radius := self.settings.neighbour_radius:
            missing = (math.log(SMALLEST_ATTENTION) - self.mean[-1]) / deviation[-1]
            if lengths is not None:
                span = span or (int(ages.max()) + 1 if len(ages) else 1)
                ages, span = separated(ages, lengths, radius, span)
            parts.append(neighbours(known[..., -1], ages, radius, missing, span))
        return torch.cat(parts, dim=-1)

    def scores(self, features: Tensor, heads: Tensor | None = None) -> Tensor:
        """How much each token is worth keeping: `bam`, then one linear unit (arXiv 2410.13166,
        section 3), beside it a hidden layer with GELU, then factor and summand of the token's head.

        features: [..., N, d], oldest token first. heads: the number of each token's KV head among
        those of all layers, an integer tensor that broadcasts to [..., N]; only where
        `settings.heads`. Returns [..., N] in float32.
        """
        return self.weights(self.theta).scores(features, heads)

    def weights(self, theta: Tensor) -> NammWeights:
        """A vector `[P]` of this form in its parts, which share its memory."""
        return NammWeights.split(theta, *_sizes(self.settings, self.attention_dim))

    def _header(self) -> dict[str, Any]:
        return {"attention_dim": self.attention_dim, **self.settings.header()}

    def _tensors(self) -> dict[str, Tensor]:
        return {"theta": self.theta, "mean": self.mean, "variance": self.variance}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Namm) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"Namm(parameters={len(self.theta)}, attention_dim={self.attention_dim}, "
            f"fingerprint='{self.fingerprint}')"
        )


def _sizes(settings: NammSettings, attention_dim: int) -> tuple[int, int, int, int]:
    return settings.feature_count, attention_dim, settings.mlp_hidden, settings.heads


def _floats(name: str, values: Tensor | NDArray[Any] | None) -> Tensor:
    if values is None:
        raise NammFileError(
            f"no {name}: a NAMM needs its parameters and the statistics that they were trained "
            "with."
        )
    if isinstance(values, Tensor):
        return values.float()
    return torch.tensor(values, dtype=torch.float32)
