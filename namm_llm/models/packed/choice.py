"""Which kernels multiply by packed weights in this process."""

from __future__ import annotations

import functools
import os
from enum import Enum

from namm_llm.errors import UsageError
from namm_llm.models.packed import int4, native
from namm_llm.models.packed.binding import Native

VARIABLE = "NAMM_LLM_PACKED"
"""Environment variable that chooses: auto, compiled, torch or off."""


class Backend(Enum):
    """Kernels for packed weights."""

    COMPILED = "compiled"
    """The C kernels, compiled for this CPU: 8-bit activations, all formats."""
    TORCH = "torch"
    """torch's int4 operator: bfloat16 activations."""
    OFF = "off"
    """None: weights are expanded."""


@functools.cache
def backend() -> Backend:
    """The backend of this process: what NAMM_LLM_PACKED says, else the first that works here.

    Raises UsageError if the variable names something else, or a backend that does not work here.
    """
    return _choose()[0]


def describe() -> str:
    """One line for the user: the backend, and why it is not a faster one."""
    chosen, reason = _choose()
    loaded = native.load() if chosen is Backend.COMPILED else None
    if isinstance(loaded, Native):
        threads = "" if loaded.threads else ", one thread"
        return f"packed weights: compiled kernels ({loaded.name}{threads})"
    name = {Backend.TORCH: "torch's int4 operator", Backend.OFF: "none, weights are expanded"}[
        chosen
    ]
    return f"packed weights: {name}" + (f" ({reason})" if reason else "")


@functools.cache
def _choose() -> tuple[Backend, str]:
    asked = os.environ.get(VARIABLE, "auto").strip().lower() or "auto"
    names = ("auto", *(each.value for each in Backend))
    if asked not in names:
        raise UsageError(f"{VARIABLE} must be one of {', '.join(names)}, not {asked!r}.")
    if asked == Backend.OFF.value:
        return Backend.OFF, f"{VARIABLE}=off"
    reasons: list[str] = []
    for each, why_not in ((Backend.COMPILED, _not_compiled), (Backend.TORCH, int4.unavailable)):
        if asked not in ("auto", each.value):
            continue
        if (reason := why_not()) is None:
            return each, "; ".join(reasons)
        reasons.append(reason)
    if asked != "auto":
        raise UsageError(f"{VARIABLE}={asked} does not work here: {reasons[0]}.")
    return Backend.OFF, "; ".join(reasons)


def _not_compiled() -> str | None:
    loaded = native.load()
    return loaded if isinstance(loaded, str) else None
