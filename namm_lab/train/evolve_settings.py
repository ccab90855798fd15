"""`EvolveSettings`: how a NAMM is evolved."""

from __future__ import annotations

from dataclasses import dataclass

from namm_lab.train.teacher_forcing import MEASURES, Measure
from namm_llm import CacheConfig, Namm, UsageError, make_cache_config
from namm_llm.config import INTERVAL, BudgetScope

THRESHOLD = "threshold"
"""The "budget" of the published rule, score >= 0."""
SIGMA_FROM_ZEROS = 0.065
"""The published run's."""
SIGMA_FROM_NAMM = 0.02
"""A sixth of the size of a distilled NAMM's parameters; at 0.003 candidates differ by less than
their prompts do."""


@dataclass(frozen=True)
class EvolveSettings:
    """How a NAMM is evolved. Raises BudgetError, PolicyError or UsageError for values that make no
    sense.
    """

    stages: tuple[tuple[str, ...], ...] = (("fact",),)
    """Tasks of each stage."""
    generations: int = 100
    """At most so many in a stage."""
    population: int = 16
    """Candidates of a generation."""
    sigma: float | None = None
    """Standard deviation of the first generation; None for `SIGMA_FROM_ZEROS` or, from a NAMM that
    can do something already, `SIGMA_FROM_NAMM`."""
    budgets: tuple[str, ...] = ("0.0625", "0.03125")
    """A candidate's fitness is its mean over them; `threshold` is the rule without one."""
    budget_scope: BudgetScope = "model"
    """Whose tokens share a budget."""
    interval: int = INTERVAL
    """Tokens between two eviction steps."""
    documents: int = 1
    """Of each task, for a generation."""
    validation: int = 4
    """Documents of each task, for a validation."""
    validate_every: int = 5
    """Generations between two validations."""
    patience: int = 6
    """A stage ends after so many validations in a row that find nothing better."""
    measure: Measure = "likelihood"
    """See `teacher_forcing.py`."""
    batch: int = 32
    """Sequences that run through the model together."""
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("generations", "documents", "validation", "validate_every", "patience", "batch")
        for name in counts:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.population < 4:
            raise UsageError(f"a population needs at least 4 candidates, not {self.population}")
        if self.sigma is not None and not 0 < self.sigma < 10:
            raise UsageError(f"sigma must be above 0 and below 10, not {self.sigma}")
        if self.measure not in MEASURES:
            raise UsageError(f"measure must be one of {', '.join(MEASURES)}, not {self.measure!r}")
        if not self.budgets:
            raise UsageError(f"give at least one budget, such as 0.25, or {THRESHOLD}")
        self.configs(Namm.zeros())  # says what is wrong with them

    def configs(self, namm: Namm) -> list[CacheConfig]:
        """A NAMM's cache under every budget."""
        return [
            make_cache_config(
                "namm",
                namm=namm,
                budget=None if budget == THRESHOLD else budget,
                budget_scope=self.budget_scope,
                interval=self.interval,
            )
            for budget in self.budgets
        ]

    def first_sigma(self, start: Namm) -> float:
        """The step size to begin with."""
        return self.sigma or (SIGMA_FROM_NAMM if start.theta.any() else SIGMA_FROM_ZEROS)
