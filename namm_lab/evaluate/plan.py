"""What an evaluation measures: tasks, lengths, modes, and the cache settings that are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, cast, get_args

from namm_lab.tasks.registry import make_task
from namm_lab.tasks.words import SPLITS
from namm_llm import CacheConfig, Namm, PolicyError, UsageError, make_cache_config, parse_budget
from namm_llm.config import INTERVAL, BudgetScope
from namm_llm.policies import make_policy, policy_class, policy_names

Mode = Literal["agnostic", "aware"]
FULL, NAMM = "full", "namm"
OWN = "own"
"""The budget scope that a policy has in a runner."""


@dataclass(frozen=True)
class CacheSetting:
    """One way to run the cache."""

    config: CacheConfig
    budget: str | None = None
    """As it was written; None for the policy's threshold."""
    namm: str | None = None
    """The NAMM's fingerprint."""
    namm_file: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """What is measured: every task, length and mode with every setting of the cache.

    Raises UsageError, PolicyError or BudgetError for values that make no sense.
    """

    tasks: tuple[str, ...] = ("fact",)
    """Names, see `make_task`."""
    lengths: tuple[int, ...] = (2000,)
    """Tokens of a document."""
    policies: tuple[str, ...] | None = None
    """Names; None for all that need nothing, and `namm` where there is one."""
    budgets: tuple[str, ...] = ("0.5", "0.25", "0.125")
    """As users write them; `none` for the threshold of a policy that has one."""
    namms: tuple[str, ...] = ()
    """NAMM files, for the policy `namm`."""
    budget_scope: tuple[str, ...] = (OWN,)
    """Scopes that are compared."""
    interval: int = INTERVAL
    """Tokens between two eviction steps."""
    sinks: int | None = None
    """First tokens that always stay; None for the policy's."""
    protect_recent: int | None = None
    """Newest tokens that always stay; None for the policy's."""
    kv_bits: int | None = None
    """8: retained keys and values are kept as 8-bit numbers."""
    samples: int = 4
    """Documents for each task and length."""
    questions: int = 8
    """About a document, for tasks that can ask several."""
    modes: tuple[Mode, ...] = ("agnostic",)
    seed: int = 0
    split: str = "test"
    texts: str | None = None
    """A folder that documents are made of; None for what Python brings along."""
    least_full: float = 0.0
    """Where the full cache scores less, nothing else is measured."""

    def __post_init__(self) -> None:
        for name in ("tasks", "lengths", "budgets", "budget_scope", "modes"):
            if not getattr(self, name):
                raise UsageError(f"there is nothing to measure without {name}.")
        if min(self.lengths) < 1 or self.samples < 1:
            raise UsageError(
                f"documents have 1 token or more, and there is 1 or more of them, not "
                f"{min(self.lengths)} and {self.samples}."
            )
        for mode in self.modes:
            if mode not in get_args(Mode):
                raise UsageError(
                    f"the mode must be one of {', '.join(get_args(Mode))}, not {mode!r}."
                )
        if not 0.0 <= self.least_full <= 1.0:
            raise UsageError(f"least_full must be from 0 to 1, not {self.least_full:g}.")
        if self.split not in SPLITS:
            raise UsageError(f"the split must be one of {', '.join(SPLITS)}, not {self.split!r}.")
        for task in self.tasks:
            make_task(task, questions=self.questions)
        for policy in self.policies or ():
            if policy != NAMM:
                make_policy(policy)
        list(self._evicting({"": Namm.zeros()}))

    def settings(self, own: Path | None = None) -> list[CacheSetting]:
        """The full cache first, then all others.

        own: the model's own NAMM file, used if no other is named. Raises PolicyError if a NAMM is
        needed and there is none, NammFileError for a file that cannot be used.
        """
        files = {file: Path(file) for file in self.namms} or (
            {own.name: own} if own is not None else {}
        )
        if self.policies and NAMM in self.policies and not files:
            raise PolicyError(
                "policy namm needs a trained NAMM: name its file (--namm FILE), or leave the "
                "policy out."
            )
        evicting = self._evicting({name: Namm.load(file) for name, file in files.items()})
        return [CacheSetting(make_cache_config(FULL, kv_bits=self.kv_bits)), *evicting]

    def _evicting(self, namms: dict[str, Namm]) -> Iterator[CacheSetting]:
        """Every policy with every scope and budget that it takes."""
        known = (*(name for name in policy_names() if name != NAMM), NAMM)
        for policy in dict.fromkeys(known if self.policies is None else self.policies):
            if policy == FULL:
                continue
            settings = list(self._of_policy(policy, namms))
            if not settings and policy != NAMM and self.policies is not None:
                raise PolicyError(
                    f"policy {policy} needs a budget, for example 0.25; the budgets are "
                    f"{', '.join(self.budgets)}"
                )
            yield from settings

    def _of_policy(self, policy: str, namms: dict[str, Namm]) -> Iterator[CacheSetting]:
        variants: list[tuple[str | None, Namm | None]] = [(None, None)]
        if policy == NAMM:
            variants = list(namms.items())
        for (file, namm), scope, written in product(variants, self.budget_scope, self.budgets):
            budget = None if written.lower() == "none" else written
            parse_budget(budget)
            if not _fits(policy, budget, scope):
                continue
            config = make_cache_config(
                policy,
                budget=budget,
                namm=namm,
                budget_scope=None if scope == OWN else cast(BudgetScope, scope),
                chunked=True,
                interval=self.interval,
                sinks=self.sinks,
                protect_recent=self.protect_recent,
                kv_bits=self.kv_bits,
            )
            yield CacheSetting(config, budget, namm.fingerprint if namm else None, file)


def _fits(policy: str, budget: str | None, scope: str) -> bool:
    """Whether a policy takes this budget: none needs a threshold, and `padded` takes none."""
    if scope == "padded":
        return budget is None
    return budget is not None or policy_class(policy).threshold is not None
