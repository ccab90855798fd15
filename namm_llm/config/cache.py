"""`CacheConfig`: all settings of an evicting cache in one frozen value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from namm_llm.config.setting import Setting, check_fields, declared_in, setting, takes_settings
from namm_llm.errors import PolicyError, UsageError
from namm_llm.policies.budget import Budget, ByteBudget, TokenBudget, parse_budget

if TYPE_CHECKING:
    from namm_llm.policies.base import EvictionPolicy

BudgetScope = Literal["head", "layer", "model", "padded"]
Positions = Literal["original", "compact"]
INTERVAL = 512  # tokens between two eviction steps, as in the published run


@dataclass(frozen=True)
class CacheConfig:
    """What a cache evicts and when: policy, budget, protected tokens, interval, precision.

    Raises UsageError for a value that is out of range, PolicyError for a policy and a budget that
    do not go together.
    """

    policy: EvictionPolicy = setting(
        "How the tokens that stay are chosen; all stay without policy and budget.",
        annotation="str | EvictionPolicy | CacheConfig | None",
        metavar="NAME",
    )
    budget: Budget | None = setting(
        "What may stay: a share (0.25, 25%), tokens per head (2048), bytes (2GiB), or auto.",
        None,
        annotation="Budget | float | int | str | None",
        metavar="B",
    )
    budget_scope: BudgetScope = setting(
        "head, layer or model: whose tokens share a budget; padded: the published threshold rule.",
        "head",
        annotation="BudgetScope | None",
        unset="the policy's",
        metavar="WHO",
        choices=get_args(BudgetScope),
    )
    head_floor: float = setting(
        "Share of its own budget that each head keeps where several share one (AdaKV: 0.2).",
        0.0,
        metavar="X",
        least=0,
        most=1,
    )
    interval: int = setting(
        "Tokens between two eviction steps.", INTERVAL, unit="tokens", metavar="N", least=1
    )
    sinks: int | None = setting(
        "First tokens that always stay.",
        None,
        unset="the policy's",
        unit="tokens",
        metavar="N",
        least=0,
    )
    protect_recent: int | None = setting(
        "Newest tokens that always stay.",
        None,
        unset="the policy's",
        unit="tokens",
        metavar="N",
        least=0,
    )
    protected: tuple[tuple[int, int], ...] = setting(
        "Spans (start, end) of positions that always stay.",
        (),
        annotation="Sequence[tuple[int, int]]",
        group="text",
    )
    kv_bits: int | None = setting(
        "8: retained keys and values are kept as 8-bit numbers.",
        None,
        unset="as computed",
        unit="bits",
        metavar="N",
        least=8,
        most=8,
    )
    positions: Positions | None = setting(
        "Where attention sees retained tokens: original: where they were read; compact: "
        "within the trained positions, however long the text is: the oldest move up.",
        None,
        annotation="Positions | None",
        unset="compact past the trained positions with a budget in tokens or bytes, else original",
        metavar="P",
        choices=get_args(Positions),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if any(start < 0 or end <= start for start, end in self.protected):
            raise UsageError(
                f"a protected span is (start, end) with 0 <= start < end, not {self.protected}"
            )
        if self.budget is not None and not self.policy.evicts:
            raise PolicyError(
                f"policy {self.policy.name} keeps every token and takes no budget; "
                "leave out one of the two."
            )
        if self.budget is None and self.policy.threshold is None:
            raise PolicyError(
                f"policy {self.policy.name} needs a budget, for example 0.25 (a quarter of the "
                "tokens) or 2048 (tokens)."
            )
        if self.positions == "compact" and (not self.policy.evicts or self.policy.repeats):
            raise PolicyError(
                f"policy {self.policy.name} keeps every token, so its positions cannot be compact; "
                "take another, and a budget, for example 2048 (tokens)."
            )
        if self.budget_scope == "padded" and (
            self.budget is not None or self.policy.threshold is None
        ):
            raise PolicyError(
                "budget_scope 'padded' is the published threshold rule: it takes no budget, and a "
                "policy with a threshold."
            )

    @property
    def shares_model(self) -> bool:
        """Whether the tokens of all layers share one budget."""
        return self.budget_scope == "model" and self.budget is not None and self.policy.evicts

    @property
    def may_compact(self) -> bool:
        """Whether positions are compact, or become so past the trained ones."""
        if self.policy.repeats:  # it keeps every token until the end of the text
            return False
        if self.positions is None:
            return isinstance(self.budget, (TokenBudget, ByteBudget)) and self.policy.evicts
        return self.positions == "compact"

    def protect(self, spans: Sequence[tuple[int, int]]) -> CacheConfig:
        """The same settings with more protected spans."""
        return replace(self, protected=(*self.protected, *((int(a), int(b)) for a, b in spans)))

    def describe(self) -> str:
        """One line for tables and results: `namm f95f4a4fb161, budget 0.25, head`."""
        bits = "" if self.kv_bits is None else f", {self.kv_bits}-bit"
        bits += ", compact positions" if self.positions == "compact" else ""
        if not self.policy.evicts:
            return f"{self.policy.name}{bits}"
        rule = (
            f"threshold {self.policy.threshold:g}"
            if self.budget is None
            else f"budget {self.budget}"
        )
        floor = f", floor {self.head_floor:g}" if self.head_floor else ""
        return f"{self.policy.label}, {rule}, {self.budget_scope}{floor}{bits}"

    def state_nbytes(self) -> int:
        """Bytes of the policy's state of one token."""
        return self.policy.state_width * self.policy.state_dtype.itemsize


_NAMM = Setting(
    help="NAMM file for the policy namm, if not the model's own.",
    name="namm",
    group="cache",
    annotation="Namm | str | os.PathLike[str] | None",
    metavar="FILE",
    takes_objects=True,
)
_DECLARED = declared_in(CacheConfig, "cache")
CACHE = (*_DECLARED[:2], _NAMM, *(each for each in _DECLARED[2:] if each.group == "cache"))
TEXT = tuple(each for each in _DECLARED if each.group == "text")


@takes_settings("the cache", (*CACHE, *TEXT))
def make_cache_config(
    policy: str | EvictionPolicy | CacheConfig | None = None,
    *,
    chunked: bool = False,
    **settings: Any,
) -> CacheConfig:
    """`CacheConfig` from what a user writes: a policy's name, a budget as a number or a text.

    Without a policy nothing is evicted if there is no budget either; a budget alone means the
    policy `namm` if a NAMM is given, else the best policy that needs no training. chunked: whether
    the forward calls end where eviction steps are due, as the runner's do; then the whole model
    shares the budget of a policy whose scores can be compared. Raises PolicyError, BudgetError or
    UsageError.
    """
    from namm_llm.policies.registry import DEFAULT_POLICY, make_policy

    if isinstance(policy, CacheConfig):
        return policy
    given = {name: value for name, value in settings.items() if value is not None}
    namm, budget = given.pop("namm", None), parse_budget(given.pop("budget", None))
    scope = given.pop("budget_scope", None)
    if policy is None:
        policy = "namm" if namm is not None else "full" if budget is None else DEFAULT_POLICY.name
    # the published rule, in the published precision
    made = make_policy(policy, namm, exact=scope == "padded")
    spans = given.pop("protected", ())
    return CacheConfig(
        policy=made,
        budget=budget,
        budget_scope=scope or ("model" if chunked and made.comparable else "head"),
        protected=tuple((int(start), int(end)) for start, end in spans),
        **given,
    )
