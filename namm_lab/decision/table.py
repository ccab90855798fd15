"""What each policy is worth in each task: returns with intervals, as rows and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transformers import DecisionTransformerModel

from namm_lab.decision.environments import Task
from namm_lab.decision.play import play
from namm_lab.evaluate.intervals import interval as interval_of
from namm_lab.rows import Row
from namm_lab.universal.shipped import SHIPPED
from namm_llm import CacheConfig, Namm, make_cache_config

INTERVAL = 12  # four steps; an episode of the T-maze has some 70 tokens


@dataclass(frozen=True)
class Contender:
    """A policy in the table."""

    label: str
    policy: str
    namm: Namm | None = None
    """The network, for the policy namm."""

    def config(self, budget: str | None) -> CacheConfig:
        """Its cache. Raises PolicyError or BudgetError."""
        recent = self.policy == RECENCY
        return make_cache_config(
            "streaming_llm" if recent else self.policy,
            sinks=0 if recent else None,
            namm=self.namm,
            budget=budget,
            interval=INTERVAL,
        )


RECENCY = "recency"
"""The newest tokens and nothing else: `streaming_llm` without its sinks."""
POLICIES = ("random", RECENCY, "streaming_llm", "h2o", "tova", "keydiff", "novelty", *SHIPPED)


def contenders(names: Sequence[str], namms: Sequence[tuple[str, Namm]]) -> list[Contender]:
    """The policies and the shipped NAMM by name, then the NAMMs with their labels."""
    shipped = [(f"NAMM {name}", Namm.load(SHIPPED[name])) for name in names if name in SHIPPED]
    plain = [Contender(name, name) for name in names if name not in SHIPPED]
    return [*plain, *(Contender(label, "namm", namm) for label, namm in (*shipped, *namms))]


def compare(
    model: DecisionTransformerModel,
    task: Task,
    given: Sequence[Contender],
    budgets: Sequence[str],
    episodes: int,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """The full cache first, then every contender at every budget, all in the same environments."""
    pairs = [(Contender("full", "full"), None), *((each, at) for each in given for at in budgets)]
    rows: list[Row] = []
    for contender, budget in pairs:
        played = play(model, task, contender.config(budget), episodes)
        low, high = mean_interval(played.returns)
        mean = sum(played.returns) / len(played.returns)
        row: Row = {
            "task": task.name,
            "policy": contender.label,
            "budget": budget or "",
            "episodes": episodes,
            "return": mean,
            "low": low,
            "high": high,
            "of_full": mean / (rows[0]["return"] if rows else mean) if mean else 0.0,
            "kept": played.kept,
        }
        rows.append(row)
        on_row(row)
    return rows


def mean_interval(returns: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean: that of a share where every return is 1 or -1, so that it is not
    empty where all are 1.
    """
    if set(returns) <= {-1.0, 1.0}:
        low, high = interval_of([(each + 1.0) / 2.0 for each in returns])
        return 2.0 * low - 1.0, 2.0 * high - 1.0
    return interval_of(returns)


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """A Markdown table of rows."""
    yield "| task | policy | budget | return | 95 % interval | of full | tokens held at the end |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        yield line(row)


def line(row: Row) -> str:
    """One row of it."""
    return (
        f"| {row['task']} | {row['policy']} | {row['budget']} | {row['return']:.2f} | "
        f"{row['low']:.2f} to {row['high']:.2f} | {row['of_full']:.0%} | {row['kept']:.0%} |"
    )
