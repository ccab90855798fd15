"""Separable CMA-ES over a flat vector (Ros and Hansen 2008,
https://doi.org/10.1007/978-3-540-87700-4_30), by the library `cmaes`.

The published run used the full covariance; with thousands of parameters its learning rate is so
small (1e-7) that it stays the identity, at the price of three dense matrices. The diagonal learns a
thousand times faster and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from namm_llm import UsageError

if TYPE_CHECKING:
    from cmaes import SepCMA

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Search:
    """A search distribution; `tell` gives the next one.

    The vectors are float32, which is what a checkpoint holds: a search that is resumed goes on from
    the same numbers as one that never stopped.
    """

    mean: Vector
    """Of the normal distribution, `[P]`."""
    diagonal: Vector
    """Its variances `[P]`, before the step size."""
    paths: Vector
    """Evolution paths of the step size and of the covariance, `[2, P]`."""
    sigma: float
    """Step size."""
    population: int
    """Candidates of a generation."""
    generation: int = 0

    @classmethod
    def start(cls, mean: Vector, sigma: float, population: int) -> Search:
        """Around `mean` `[P]` with standard deviation `sigma` in every direction."""
        mean = np.asarray(mean, np.float32)
        return cls(
            mean, np.ones_like(mean), np.zeros((2, len(mean)), np.float32), sigma, population
        )

    def ask(self, seed: int) -> Vector:
        """The candidates `[population, P]` of this generation; the same for the same seed."""
        optimizer = self._optimizer(seed)
        return np.stack([optimizer.ask() for _ in range(self.population)]).astype(np.float32)

    def tell(self, candidates: Vector, fitness: Sequence[float]) -> Search:
        """The distribution after a generation; the higher the fitness, the better."""
        optimizer = self._optimizer(0)
        optimizer.tell(
            [
                (candidate.astype(np.float64), -value)
                for candidate, value in zip(candidates, fitness, strict=True)
            ]
        )
        state = optimizer.__getstate__()
        return Search(
            mean=state["_mean"].astype(np.float32),
            diagonal=state["_C"].astype(np.float32),
            paths=np.stack([state["_p_sigma"], state["_pc"]]).astype(np.float32),
            sigma=float(state["_sigma"]),
            population=self.population,
            generation=self.generation + 1,
        )

    def _optimizer(self, seed: int) -> SepCMA:
        """The library's optimizer in this state. Its pickled form is the only way in and out; a
        test checks that its names are still the same.
        """
        seeds = np.random.SeedSequence([seed, self.generation]).generate_state(1)
        optimizer = _library()(
            self.mean.astype(np.float64),
            self.sigma,
            seed=int(seeds[0]),
            population_size=self.population,
        )
        sigma_path, covariance_path = self.paths.astype(np.float64)
        state = {
            "_C": self.diagonal.astype(np.float64),
            "_p_sigma": sigma_path,
            "_pc": covariance_path,
            "_g": self.generation,
        }
        optimizer.__setstate__({**optimizer.__getstate__(), **state})
        optimizer.reseed_rng(int(seeds[0]))
        return optimizer


def _library() -> Any:
    try:
        from cmaes import SepCMA
    except ImportError as error:
        raise UsageError(
            "evolving needs the library cmaes: pip install 'namm-llm[lab]'."
        ) from error
    return SepCMA
