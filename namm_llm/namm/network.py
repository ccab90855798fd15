"""`Namm`: the parameters, statistics and settings that turn what a token has seen into one score.

    state [..., N, w], ages [..., N]  --features-->  [..., N, d]  --scores-->  [..., N]        published: w = 17, d = 8 + 17 = 25

One `Namm` serves every layer and KV head. It keeps no state and does not decide which tokens stay.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from namm_llm.errors import NammFileError
from namm_llm.namm import files
from namm_llm.namm.bam import BamWeights, bam
from namm_llm.namm.layout import HIDDEN, hidden_size, parameter_count, parameter_shapes
from namm_llm.namm.memory import NONE, SMALLEST_ATTENTION, Memory, scaled
from namm_llm.namm.neighbours import apart, neighbours
from namm_llm.namm.probes import NO_PROBES, Probes
from namm_llm.namm.recency import Recency, recency
from namm_llm.namm.reference import Member, read_reference
from namm_llm.namm.spectrogram import Spectrogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_DEVIATION = 1e-7  # a frequency that never varied must not divide by zero


@final
@dataclass(frozen=True, eq=False, repr=False)
class Namm:
    """A neural attention memory model (arXiv 2410.13166, section 3).

    Two are equal when all their numbers and settings are. `theta` may be a `torch.nn.Parameter`:
    `scores` is differentiable in it. All tensors are float32 on one device; `from_vector` converts.
    Raises NammFileError when a shape does not fit or a number is not finite.
    """

    theta: Tensor  # [P], in the order of layout.py
    mean: Tensor  # [w], of the state (maxima on their logarithmic scale) over many tokens
    variance: Tensor  # [w]
    spectrogram: Spectrogram = Spectrogram()  # noqa: RUF009 (frozen)
    recency: Recency = Recency()  # noqa: RUF009 (frozen)
    memory: Memory = Memory()  # noqa: RUF009 (frozen)
    units: int = 0  # of a hidden layer beside the linear score; published: none
    probes: Probes = Probes()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.probes != NO_PROBES and not self.takes_probes:
            raise NammFileError(
                "it names probes, but remembers nothing of them: set memory.probed or probes.averaged."
            )
        for name, tensor in self._tensors().items():
            if tensor.ndim != 1 or tensor.dtype != torch.float32:
                raise NammFileError(
                    f"{name} must be a float32 vector, got {tensor.dtype} {list(tensor.shape)}."
                )
            if not tensor.isfinite().all():
                raise NammFileError(f"{name} has numbers that are not finite.")
        if not len(self.mean) == len(self.variance) == self.state_width:
            sizes = (
                f"got {len(self.mean)} and {len(self.variance)}, expected {self.state_width} each"
            )
            raise NammFileError(f"wrong number of means and variances: {sizes}.")
        if (self.variance < 0).any():
            raise NammFileError("variance has negative numbers.")
        hidden_size(len(self.theta), self.feature_count, self.units)  # raises when there is none

    @classmethod
    def from_vector(
        cls,
        theta: Tensor | NDArray[Any],
        mean: Tensor | NDArray[Any],
        variance: Tensor | NDArray[Any],
        *,
        spectrogram: Spectrogram = spectrogram,
        recency: Recency = recency,
        memory: Memory = NONE,
        units: int = 0,
        probes: Probes = NO_PROBES,
    ) -> Namm:
        """theta [P], mean and variance [w]. Numpy arrays are copied, float32 tensors are used as
        they are.
        """
        numbers = _floats("theta", theta), _floats("mean", mean), _floats("variance", variance)
        return cls(*numbers, spectrogram, recency, memory, units, probes)

    @classmethod
    def zeros(
        cls,
        hidden: int = HIDDEN,
        *,
        spectrogram: Spectrogram = spectrogram,
        recency: Recency = recency,
        memory: Memory = NONE,
        units: int = 0,
        probes: Probes = NO_PROBES,
    ) -> Namm:
        """All scores are exactly 0, so the published rule (score >= 0) keeps every token.

        Its mean of 0 and variance of 1 are placeholders: they change nothing as long as theta is 0.
        """
        width = spectrogram.width + memory.width(spectrogram.bins)
        theta = torch.zeros(parameter_count(recency.size + width + 2 * memory.reach, hidden, units))
        return cls(
            theta,
            torch.zeros(width),
            torch.ones(width),
            spectrogram,
            recency,
            memory,
            units,
            probes,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Namm:
        """Read what `save` wrote, or a checkpoint of the reference (`*.pt`). NammFileError when it
        does not serve.
        """
        path = Path(path)
        if path.suffix == ".pt":
            return cls.import_reference(path)
        with files.named(path):
            header, tensors = files.read(path)
            return cls.from_parts(header, tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file of some 17 kB, all or nothing. NammFileError when it cannot be
        written.
        """
        files.write(Path(path), *self.parts())

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings with the fingerprint, ready for JSON, and the numbers by name: what a file
        holds.
        """
        return {"fingerprint": self.fingerprint, **self.settings}, self._tensors()

    @classmethod
    def from_parts(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Namm:
        """The inverse of `parts`. NammFileError when they do not belong together."""
        return _from_parts(settings, tensors)

    @classmethod
    def import_reference(
        cls,
        path: str | os.PathLike[str],
        *,
        member: Member = "mean",
        spectrogram: Spectrogram = spectrogram,
        recency: Recency = recency,
    ) -> Namm:
        """Read a checkpoint of the reference implementation, without running any code in it (see
        `reference.py`).

        member: "mean" of the search distribution, which the paper evaluates, or "best" individual.
        spectrogram and recency: the settings of that run, which its file does not hold.
        NammFileError when the file does not serve.
        """
        with files.named(Path(path)):
            parts = read_reference(Path(path), member)
            return cls.from_vector(
                parts["theta"],
                parts["mean"],
                parts["variance"],
                spectrogram=spectrogram,
                recency=recency,
            )

    @property
    def vector(self) -> Tensor:
        """A copy of the parameters [P], outside the graph of autograd."""
        return self.theta.detach().clone()

    @property
    def state_width(self) -> int:
        """Numbers remembered of one token, w: the averages of each bin, then what `memory` says."""
        return sum(self.columns)

    @property
    def columns(self) -> tuple[int, int, int, int, int]:
        """How many numbers of a state are averages, past scores, peaks, of probes, of the second
        reading, in this order.
        """
        return (self.spectrogram.width, *self.memory.columns(self.spectrogram.bins))

    @property
    def feature_count(self) -> int:
        """Features of one token, d."""
        return self.recency.size + self.state_width + 2 * self.memory.reach

    @property
    def takes_probes(self) -> bool:
        """Whether it was made for probes, which have to be run at its updates."""
        return self.memory.probed or self.probes.averaged

    @property
    def hidden(self) -> int:
        """Size of the attention's queries, keys and values, h."""
        return hidden_size(len(self.theta), self.feature_count, self.units)

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers mean, as plain values: what a file's header keeps. What is as published
        is not mentioned, but for its sizes.
        """
        spectrogram = {
            name: value
            for name, value in asdict(self.spectrogram).items()
            if value not in (None, ())
        }
        memory = {name: value for name, value in asdict(self.memory).items() if value}
        own: dict[str, Any] = {"memory": memory} if memory else {}
        if self.units:
            own["units"] = self.units
        if probes := {
            name: value
            for name, value in asdict(self.probes).items()
            if value != getattr(NO_PROBES, name)
        }:
            own["probes"] = probes
        return {
            "hidden": self.hidden,
            "spectrogram": spectrogram,
            "recency": asdict(self.recency),
            **own,
        }

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the SHA-256 of all numbers and settings, the same on every
        device.
        """
        # not cached: theta may be in training
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.detach().cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()[:12]

    def normalise(self, state: Tensor) -> Tensor:
        """[..., N, w] to the same with mean 0 and variance 1, float32; the maxima of `memory` on a
        logarithmic scale.
        """
        deviation = self.variance.sqrt().clamp_min(SMALLEST_DEVIATION)
        return (self.scaled(state) - self.mean) / deviation

    def scaled(self, state: Tensor) -> Tensor:
        """[..., N, w] to the same, float32: what means and variances are taken of."""
        return scaled(state, sum(self.columns[:2]))

    def with_statistics(self, mean: Tensor, variance: Tensor) -> Namm:
        """The same for other means and variances `[w]`. Past scores keep 0 and 1: they have the
        scale of scores whatever the model is.
        """
        past = slice(self.columns[0], sum(self.columns[:2]))
        mean, variance = mean.to(self.mean, copy=True), variance.to(self.variance, copy=True)
        mean[past], variance[past] = 0.0, 1.0
        return replace(self, mean=mean, variance=variance)

    def with_zero_at(self, score: float) -> Namm:
        """The same ranking with 0 where `score` was: what has that or more is what the published
        rule keeps.
        """
        theta = self.vector
        theta[parameter_count(self.feature_count, self.hidden) - 1] -= (
            score  # the bias; the units come after it
        )
        return replace(self, theta=theta)

    def features(
        self,
        state: Tensor,
        ages: Tensor,
        lengths: Sequence[int] | None = None,
        span: int | None = None,
    ) -> Tensor:
        """[recency | state | neighbours], of which the recency alone is not normalised (arXiv
        2410.13166, section 3, which has no neighbours).

        state: [..., N, w], any float type: `Spectrogram.update`, then the columns of `memory`.
        ages: [..., N], in tokens; the newest token has 0. lengths: of segments that lie one after
        the other in [N, w], each a KV head of its own. span: above all ages; without it the host
        asks the device. Returns [..., N, d] in float32.
        """
        known = self.normalise(state)
        if not self.memory.reach:
            return torch.cat([recency(ages, self.recency), known], dim=-1)
        deviation = self.variance[-1].sqrt().clamp_min(SMALLEST_DEVIATION)
        missing = (math.log(SMALLEST_ATTENTION) - self.mean[-1]) / deviation
        if lengths is not None:
            span = span or (int(ages.max()) + 1 if len(ages) else 1)
            ages_apart, span = apart(ages, lengths, self.memory.reach, span)
        around = neighbours(
            known[..., -1],
            ages if lengths is None else ages_apart,
            self.memory.reach,
            missing,
            span,
        )
        return torch.cat([recency(ages, self.recency), known, around], dim=-1)

    def scores(self, features: Tensor) -> Tensor:
        """The higher, the more worth keeping: `bam`, then one linear unit (arXiv 2410.13166,
        section 3), and beside it `units` with GELU.

        features: [..., N, d], oldest token first. Returns [..., N] in float32.
        """
        shapes = parameter_shapes(self.feature_count, self.hidden, self.units)
        pieces = torch.split(self.theta, [math.prod(shape) for shape in shapes])
        weights = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        attention, (weight, bias, *layer) = (
            (weights[:4], weights[4:]) if self.hidden else ([], weights)
        )
        # 16-bit scores would move tokens across the threshold, so an autocast around the model must
        # not reach in here
        with torch.autocast(features.device.type, enabled=False):
            seen = bam(features.float(), BamWeights(*attention)) if attention else features.float()
            score = linear(seen, weight.T, bias)
            if layer:
                # transposed, for what is contiguous is oneDNN's, which compiles a GELU for each
                # number of tokens and keeps it
                score = score + gelu(linear(seen, layer[0].T, layer[1]).mT).mT @ layer[2]
            return score.squeeze(-1)

    def to(self, device: torch.device | str) -> Namm:
        """The same on another device."""
        return replace(
            self,
            theta=self.theta.to(device),
            mean=self.mean.to(device),
            variance=self.variance.to(device),
        )

    def _tensors(self) -> dict[str, Tensor]:
        return {"theta": self.theta, "mean": self.mean, "variance": self.variance}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Namm) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Namm(parameters={len(self.theta)}, hidden={self.hidden}, fingerprint='{self.fingerprint}')"


def _from_parts(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Namm:
    """Check the tensors of a file against its header."""
    if missing := [name for name in ("theta", "mean", "variance") if name not in tensors]:
        raise NammFileError(
            f"it has no {', no '.join(missing)}: train it again, or save it with its statistics."
        )
    try:
        _check_known(header)
        hidden, fingerprint = int(header["hidden"]), header["fingerprint"]
        spectrogram, embedding = Spectrogram(**header["spectrogram"]), Recency(**header["recency"])
        memory, units = Memory(**header.get("memory", {})), int(header.get("units", 0))
        probes = Probes(**header.get("probes", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise NammFileError("its header is damaged.") from error
    features = (
        embedding.size + spectrogram.width + memory.width(spectrogram.bins) + 2 * memory.reach
    )
    got, expected = tensors["theta"].numel(), parameter_count(features, hidden, units)
    if got != expected:
        raise NammFileError(
            f"wrong number of parameters: got {got}, expected {expected} (hidden {hidden})."
        )
    vectors = (tensors[name] for name in ("theta", "mean", "variance"))
    namm = Namm.from_vector(
        *vectors,
        spectrogram=spectrogram,
        recency=embedding,
        memory=memory,
        units=units,
        probes=probes,
    )
    if namm.fingerprint != fingerprint:
        raise NammFileError(
            f"damaged: its numbers have fingerprint {namm.fingerprint}, its header says {fingerprint}."
        )
    return namm


def _check_known(header: Mapping[str, Any]) -> None:
    """NammFileError for what a later version may have added: without it the numbers would mean
    something else.
    """
    parts = (
        ("spectrogram", Spectrogram),
        ("recency", Recency),
        ("memory", Memory),
        ("probes", Probes),
    )
    unknown = sorted(
        set(header) - {"version", "fingerprint", "hidden", "units", *(part for part, _ in parts)}
    )
    for part, kind in parts:
        unknown += [
            f"{part}.{name}"
            for name in sorted(set(header.get(part, {})) - {field.name for field in fields(kind)})
        ]
    if unknown:
        raise NammFileError(
            f"it was made with {', '.join(unknown)}, which this namm-llm does not know: update namm-llm."
        )


def _floats(name: str, values: Tensor | NDArray[Any] | None) -> Tensor:
    if values is None:
        raise NammFileError(
            f"no {name}: a NAMM needs its parameters and the statistics that they were trained with."
        )
    return (
        values.float() if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float32)
    )
