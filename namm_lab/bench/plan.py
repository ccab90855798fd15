"""What is measured, as one frozen value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, cast, get_args

import torch

from namm_lab.bench.shapes import QUANTIZATIONS, Shape, random_namm, shape_named
from namm_lab.bench.sides import DEFAULT_PEERS, REFERENCE, CacheSide, OurSide, missing, peer_side
from namm_llm.config import INTERVAL, BudgetScope, CacheConfig, make_cache_config
from namm_llm.errors import UsageError
from namm_llm.policies import POLICIES

TASKS = ("prefill", "decode", "memory")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMALL_NBYTES = 2 * 2**30  # as in the runner: up to this, a CPU computes in float32


@dataclass(frozen=True)
class Cell:
    """One place of the table: every side is measured here. batch: prompts side by side. length:
    tokens of each.
    """

    quantization: str | None
    batch: int
    length: int


@dataclass(frozen=True)
class Benchmark:
    """model: folder or Hugging Face id; or shape: one of `SHAPES`, with random weights. layers:
    only so many of the shape's. tasks: of `TASKS`. lengths: tokens. policies, budgets, kv_bits
    (none, 8): of ours, all combinations. peers: others, to which the reference comes; without any
    ours are alone and nothing is compared. batches, quantizations: all combinations. namm: file for
    the policy namm, random parameters if there is none. budget_scope, interval: as of
    `make_cache_config`; a chunk of every side that reads in chunks is one interval. decoded:
    tokens. runs: rounds in which every side has its turn. Raises UsageError.
    """

    model: str | None = None
    shape: str | None = None
    layers: int | None = None
    tasks: tuple[str, ...] = TASKS
    lengths: tuple[int, ...] = (2000,)
    policies: tuple[str, ...] = ("replay",)
    budgets: tuple[str, ...] = ("0.25",)
    peers: tuple[str, ...] = DEFAULT_PEERS
    batches: tuple[int, ...] = (1,)
    quantizations: tuple[str, ...] = ("none",)
    kv_bits: tuple[str, ...] = ("none",)
    namm: str | None = None
    budget_scope: str | None = None
    interval: int = INTERVAL
    decoded: int = 64
    runs: int = 5
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if (self.model is None) == (self.shape is None):
            raise UsageError("a benchmark is of a model or of a shape: give one of the two.")
        for name in ("lengths", "batches"):
            if min(getattr(self, name), default=0) < 1:
                raise UsageError(
                    f"{name} must be numbers above 0, not {', '.join(map(str, getattr(self, name))) or 'nothing'}."
                )
        for name, least in (("decoded", 1), ("runs", 1), ("interval", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        _known("task", self.tasks, TASKS)
        _known("policy", self.policies, tuple(POLICIES))
        _known("quantization", self.quantizations, ("none", *QUANTIZATIONS))
        _known("kind of kv_bits", self.kv_bits, ("none", "8"))
        _known("dtype", (self.dtype,), ("auto", *_DTYPES))
        if self.budget_scope is not None:
            _known("way to budget_scope", (self.budget_scope,), get_args(BudgetScope))
        if self.shape is not None:
            shape_named(self.shape, self.layers)
        elif self.layers is not None:
            raise UsageError("layers belongs to a shape; a model is measured as it is.")
        self.sides()

    def cells(self) -> Iterator[Cell]:
        """In the order in which they are measured: one model after the other."""
        for quantization, batch, length in product(
            dict.fromkeys(self.quantizations),
            dict.fromkeys(self.batches),
            dict.fromkeys(self.lengths),
        ):
            yield Cell(None if quantization == "none" else quantization, batch, length)

    def sides(self) -> list[CacheSide]:
        """The reference if there are peers, ours, and the peers that can run here."""
        ours = [OurSide(eviction, budget, self.interval) for eviction, budget in self.evictions()]
        peers = [peer_side(name, self.interval) for name in dict.fromkeys(self.peers)]
        here = [side for side in peers if side.name != REFERENCE and missing(side.name) is None]
        reference = [peer_side(REFERENCE, self.interval)] if peers else []
        return [*reference, *ours, *here]

    def evictions(self) -> Iterator[tuple[CacheConfig, str | None]]:
        """Settings of each of ours, with the budget as it was written."""
        for policy in dict.fromkeys(self.policies):
            namm: Any = (self.namm or random_namm()) if policy == "namm" else None
            who = cast("BudgetScope | None", self.budget_scope)
            budgets = dict.fromkeys(self.budgets if POLICIES[policy].evicts else (None,))
            for budget, name in product(budgets, dict.fromkeys(self.kv_bits)):
                bits = None if name == "none" else int(name)
                settings: Any = {
                    "budget": budget,
                    "namm": namm,
                    "budget_scope": who,
                    "interval": self.interval,
                    "kv_bits": bits,
                }
                yield make_cache_config(policy, chunked=True, **settings), budget

    def left_out(self) -> list[str]:
        """A line for each peer that cannot run here."""
        return [line for name in dict.fromkeys(self.peers) if (line := missing(name)) is not None]

    def torch_device(self) -> torch.device:
        """Where it is measured."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            found = torch.device(self.device)
        except RuntimeError:
            raise UsageError(
                f"device must be auto, cpu, cuda or cuda:N, not {self.device!r}."
            ) from None
        if found.type not in ("cpu", "cuda") or (
            found.type == "cuda" and not torch.cuda.is_available()
        ):
            raise UsageError(
                f"there is no device {self.device} here to measure on; --device cpu is always there."
            )
        return found

    def torch_dtype(self, shape: Shape) -> torch.dtype:
        """The shape's numbers: on a CPU float32 for small models, else bfloat16."""
        if self.dtype != "auto":
            return _DTYPES[self.dtype]
        small = (
            self.torch_device().type == "cpu"
            and shape.weights_nbytes(torch.bfloat16) <= _SMALL_NBYTES
        )
        return torch.float32 if small else torch.bfloat16


def _known(what: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"there is no {what} {name!r}; it is one of {', '.join(known)}.")
    if not given:
        raise UsageError(f"name at least one {what}: {', '.join(known)}.")
