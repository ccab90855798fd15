"""What is measured: tasks, lengths, modes, and the settings of the cache that are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from namm_lab.tasks.registry import make_task
from namm_lab.tasks.words import SPLITS
from namm_llm.config import INTERVAL, BudgetScope, CacheConfig, make_cache_config
from namm_llm.errors import PolicyError, UsageError
from namm_llm.namm import Namm
from namm_llm.policies import POLICIES, make_policy
from namm_llm.policies.budget import parse_budget

Mode = Literal["agnostic", "aware"]
FULL, NAMM = "full", "namm"
OWN = "own"  # as the policy does in the runner


@dataclass(frozen=True)
class Setting:
    """One way to run the cache. budget: as it was written, None for the policy's threshold. namm,
    namm_file: the NAMM's fingerprint and file.
    """

    policy: str
    eviction: CacheConfig
    budget: str | None = None
    namm: str | None = None
    namm_file: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """tasks: names, see `make_task`. lengths: of documents, in tokens. policies: names, or None for
    all that need nothing and `namm` where there is one. budgets: as users write them; `none` for
    the threshold of a policy that has one. namms: NAMM files, for the policy namm. budget_scope,
    interval, sinks, protect_recent, kv_bits: as of `make_cache_config`; several ways to budget_scope are
    compared, `own` is what the policy does in a runner. samples: documents for each task and
    length. questions: about a document. modes, seed, split; texts: see `draw_samples`. probes:
    texts for the NAMMs that were made for probes, in the place of their own. Raises UsageError,
    PolicyError, BudgetError.
    """

    tasks: tuple[str, ...] = ("fact",)
    lengths: tuple[int, ...] = (2000,)
    policies: tuple[str, ...] | None = None
    budgets: tuple[str, ...] = ("0.5", "0.25", "0.125")
    namms: tuple[str, ...] = ()
    budget_scope: tuple[str, ...] = (OWN,)
    interval: int = INTERVAL
    sinks: int | None = None
    protect_recent: int | None = None
    kv_bits: int | None = None
    samples: int = 4
    questions: int = 8
    modes: tuple[Mode, ...] = ("agnostic",)
    seed: int = 0
    split: str = "test"
    texts: str | None = None
    probes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tasks", "lengths", "budgets", "budget_scope", "modes"):
            if not getattr(self, name):
                raise UsageError(f"there is nothing to measure without {name}.")
        if min(self.lengths) < 1 or self.samples < 1:
            raise UsageError(
                f"documents have 1 token or more, and there is 1 or more of them, not {min(self.lengths)} and {self.samples}."
            )
        for mode in self.modes:
            if mode not in get_args(Mode):
                raise UsageError(
                    f"the mode must be one of {', '.join(get_args(Mode))}, not {mode!r}."
                )
        if self.split not in SPLITS:
            raise UsageError(f"the split must be one of {', '.join(SPLITS)}, not {self.split!r}.")
        for task in self.tasks:
            make_task(task, questions=self.questions)
        for policy in self.policies or ():
            if policy != NAMM:
                make_policy(policy)
        list(self._settings({"": Namm.zeros()}))

    def settings(self, own: Path | None = None) -> list[Setting]:
        """The full cache first, then all others. own: the NAMM that lies with the model, used if no
        other is named. NammFileError.
        """
        files = {file: Path(file) for file in self.namms} or (
            {own.name: own} if own is not None else {}
        )
        if self.policies and NAMM in self.policies and not files:
            raise PolicyError(
                "policy namm needs a trained NAMM: name its file (--namm FILE), or leave the policy out"
            )
        found = self._settings({name: Namm.load(file) for name, file in files.items()})
        return [Setting(FULL, make_cache_config(FULL, kv_bits=self.kv_bits)), *found]

    def _settings(self, namms: dict[str, Namm]) -> Iterator[Setting]:
        """Those that evict."""
        policies = (
            self.policies
            if self.policies is not None
            else (*(name for name in POLICIES if name != NAMM), NAMM)
        )
        for policy in dict.fromkeys(policies):
            found = (
                [s for s in self._of_policy(policy, namms) if s is not None]
                if policy != FULL
                else []
            )
            if not found and policy not in (FULL, NAMM) and self.policies is not None:
                raise PolicyError(
                    f"policy {policy} needs a budget, for example 0.25; the budgets are {', '.join(self.budgets)}"
                )
            yield from found

    def _of_policy(self, policy: str, namms: dict[str, Namm]) -> Iterator[Setting]:
        for file, namm in namms.items() if policy == NAMM else ((None, None),):
            for budget_scope in self.budget_scope:
                for written in self.budgets:
                    budget = None if written.lower() == "none" else written
                    parse_budget(budget)
                    if not _fits(policy, budget, budget_scope):
                        continue
                    who = cast(BudgetScope, budget_scope) if budget_scope != OWN else None
                    eviction = make_cache_config(
                        policy,
                        budget=budget,
                        namm=namm,
                        budget_scope=who,
                        chunked=True,
                        interval=self.interval,
                        sinks=self.sinks,
                        protect_recent=self.protect_recent,
                        kv_bits=self.kv_bits,
                    )
                    yield Setting(
                        policy,
                        eviction,
                        budget,
                        namm.fingerprint if namm is not None else None,
                        file,
                    )


def _fits(policy: str, budget: str | None, budget_scope: str) -> bool:
    """Whether a policy takes this budget: none needs a threshold, and `padded` takes none."""
    return (
        (budget is None)
        if budget_scope == "padded"
        else (budget is not None or POLICIES[policy].threshold is not None)
    )
