"""What is measured, as one frozen value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, cast, get_args

import torch

from namm_lab.bench.contenders import (
    DEFAULT_PEERS,
    OUTSIDE,
    REFERENCE,
    Contender,
    ManagedContender,
    missing,
    peer_contender,
)
from namm_lab.bench.shapes import QUANTIZATIONS, Shape, random_namm, shape_named
from namm_llm import CacheConfig, UsageError, make_cache_config
from namm_llm.config import INTERVAL, BudgetScope
from namm_llm.models.gguf import is_gguf
from namm_llm.policies import policy_class, policy_names

TASKS = ("prefill", "decode", "memory")
KNOWN_TASKS = (*TASKS, "needles")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMALL_NBYTES = 2 * 2**30  # as in the runner: up to this, a CPU computes in float32


@dataclass(frozen=True)
class Cell:
    """What every contender is measured on."""

    quantization: str | None
    """Of the weights."""
    batch: int
    """Prompts side by side."""
    length: int
    """Tokens of each."""
    text: str | None = None
    """What is read, see `text_named`; None for random tokens."""


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark measures: one model with all combinations of these settings.

    Raises UsageError for values that make no sense.
    """

    model: str | None = None
    """Folder or Hugging Face id; or else a shape."""
    shape: str | None = None
    """One of `SHAPES`, with random weights."""
    layers: int | None = None
    """Only so many layers of the shape."""
    tasks: tuple[str, ...] = TASKS
    lengths: tuple[int, ...] = (2000,)
    """Tokens of a prompt."""
    policies: tuple[str, ...] = ("replay",)
    """Of ours."""
    budgets: tuple[str, ...] = ("0.25",)
    """Of ours, as users write them."""
    peers: tuple[str, ...] = DEFAULT_PEERS
    """Others, to which the reference comes; without any ours are alone and nothing is compared."""
    texts: tuple[str, ...] = ()
    """What is read: documentation or code of Python, or files; random tokens without any."""
    needles: int = 0
    """Numbers that are hidden in each text, one in each prompt of the task needles."""
    batches: tuple[int, ...] = (1,)
    """Prompts side by side."""
    quantizations: tuple[str, ...] = ("none",)
    """Of the weights."""
    kv_bits: tuple[str, ...] = ("none",)
    """Of ours: none or 8."""
    namm: str | None = None
    """File for the policy namm; random parameters without one."""
    budget_scope: str | None = None
    """Whose tokens share a budget; None for the policy's."""
    interval: int = INTERVAL
    """Tokens between two eviction steps, and of a chunk of every contender that reads in chunks."""
    decoded: int = 64
    """Tokens decoded in one run."""
    runs: int = 5
    """Rounds in which every contender has its turn."""
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if (self.model is None) == (self.shape is None):
            raise UsageError("a benchmark is of a model or of a shape: give one of the two.")
        for name in ("lengths", "batches"):
            given = getattr(self, name)
            if min(given, default=0) < 1:
                shown = ", ".join(map(str, given)) or "nothing"
                raise UsageError(f"{name} must be numbers above 0, not {shown}.")
        for name, least in (("decoded", 1), ("runs", 1), ("interval", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        _known("task", self.tasks, KNOWN_TASKS)
        _known("policy", self.policies, policy_names())
        _known("quantization", self.quantizations, ("none", *QUANTIZATIONS))
        _known("kind of kv_bits", self.kv_bits, ("none", "8"))
        _known("dtype", (self.dtype,), ("auto", *_DTYPES))
        if self.budget_scope is not None:
            _known("budget_scope", (self.budget_scope,), get_args(BudgetScope))
        if self.shape is not None:
            shape_named(self.shape, self.layers)
        elif self.layers is not None:
            raise UsageError("layers belongs to a shape; a model is measured as it is.")
        self._check_texts()
        self._check_outside()
        self.contenders()

    def cells(self) -> Iterator[Cell]:
        """In the order in which they are measured: one model after the other."""
        for quantization, batch, length, text in product(
            dict.fromkeys(self.quantizations),
            dict.fromkeys(self.batches),
            dict.fromkeys(self.lengths),
            dict.fromkeys(self.texts) or (None,),
        ):
            yield Cell(None if quantization == "none" else quantization, batch, length, text)

    def contenders(self) -> list[Contender]:
        """The reference if there are peers, ours, and the peers that can run here."""
        ours = [
            ManagedContender(config, budget, self.interval) for config, budget in self.configs()
        ]
        inside = [name for name in dict.fromkeys(self.peers) if name not in self.outside_peers()]
        peers = [peer_contender(name, self.interval) for name in inside]
        here = [each for each in peers if each.name != REFERENCE and missing(each.name) is None]
        reference = [peer_contender(REFERENCE, self.interval)] if peers else []
        return [*reference, *ours, *here]

    def outside_peers(self) -> tuple[str, ...]:
        """The peers that open the model's GGUF file in a process of their own."""
        if not self._is_gguf:
            return ()
        return tuple(name for name in dict.fromkeys(self.peers) if name in OUTSIDE)

    @property
    def _is_gguf(self) -> bool:
        return self.model is not None and is_gguf(self.model)

    def _check_outside(self) -> None:
        named = [name for name in self.peers if name in OUTSIDE[:2]]
        if named and not self._is_gguf:
            raise UsageError(f"{named[0]} opens a GGUF file: give one as --model, or leave it out.")
        if self.outside_peers() and set(self.batches) != {1}:
            peer = self.outside_peers()[0]
            raise UsageError(f"{peer} reads one prompt at a time: leave batches out.")

    def _check_texts(self) -> None:
        if self.texts and self.model is None:
            raise UsageError("a text needs the tokens of a real model: give --model.")
        if "needles" in self.tasks and (not self.texts or self.needles < 1):
            raise UsageError(
                "the task needles needs a number of needles and texts to hide them in."
            )
        if "needles" in self.tasks and "namm" in self.policies and self.namm is None:
            raise UsageError(
                "a benchmark's own NAMM has random parameters, by which no answer should be "
                "judged: give --namm FILE, or leave namm out of --policies."
            )

    def configs(self) -> Iterator[tuple[CacheConfig, str | None]]:
        """Settings of each of ours, with the budget as it was written."""
        for policy in dict.fromkeys(self.policies):
            namm: Any = (self.namm or random_namm()) if policy == "namm" else None
            scope = cast("BudgetScope | None", self.budget_scope)
            budgets = dict.fromkeys(self.budgets if policy_class(policy).evicts else (None,))
            for budget, name in product(budgets, dict.fromkeys(self.kv_bits)):
                bits = None if name == "none" else int(name)
                settings: Any = {
                    "budget": budget,
                    "namm": namm,
                    "budget_scope": scope,
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
                f"there is no device {self.device} here to measure on; --device cpu is always "
                "there."
            )
        return found

    @property
    def float_dtype(self) -> torch.dtype | None:
        """The dtype that was given, or None for auto."""
        return _DTYPES.get(self.dtype)

    def torch_dtype(self, shape: Shape) -> torch.dtype:
        """The shape's numbers: on a CPU float32 for small models, else bfloat16."""
        if self.float_dtype is not None:
            return self.float_dtype
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
