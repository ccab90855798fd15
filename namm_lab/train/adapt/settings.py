"""`AdaptSettings`: how an adapter is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from namm_llm import UsageError

Loss = Literal["next", "repeat", "full"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How an adapter is trained. Raises UsageError for values that make no sense."""

    losses: tuple[Loss, ...] = LOSSES
    """`next`: the next tokens of a text whose first half was evicted. `repeat`: a passage that was
    evicted, repeated. `full`: the next tokens with the full cache. Samples take them in turn."""
    length: int = 512
    """Tokens of a passage, and of what follows it."""
    steps: int = 150
    """Steps of the optimizer in all, which the learning rate follows."""
    batch: int = 3
    """Samples of a step."""
    rank: int = 8
    """Rank of the changes."""
    rate: float = 2e-4
    """Highest learning rate."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("length", "steps", "batch", "rank"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 < self.rate < 1:
            raise UsageError(f"rate must be above 0 and below 1, not {self.rate}")
        if wrong := [loss for loss in self.losses if loss not in LOSSES]:
            raise UsageError(f"a loss is one of {', '.join(LOSSES)}, not {wrong[0]!r}")
        if not self.losses:
            raise UsageError(f"give at least one loss of {', '.join(LOSSES)}")

    def rate_of(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: up over the first tenth, then down to 0 in a line."""
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (self.steps - step) / (self.steps - warm + 1)
