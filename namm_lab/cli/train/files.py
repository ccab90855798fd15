"""The file that a command writes, and the form of the NAMM in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from namm_llm import UsageError
from namm_llm.io import check_writable

if TYPE_CHECKING:
    from namm_llm import Namm


def out_of(given: dict[str, Any]) -> Path:
    """Where the NAMM goes."""
    return Path(given.get("out", "namm.safetensors"))


def new_file(given: dict[str, Any]) -> Path:
    """The same, checked before any work: what is there is not replaced unasked, and a place that
    cannot be written is refused.
    """
    out = out_of(given)
    if out.exists() and not given.get("force"):
        raise UsageError(
            f"{out} exists already: name another file with --out, or replace it with --force."
        )
    return check_writable(out)


def family(given: dict[str, Any]) -> Namm:
    """Parameters of zero in the form that is wanted."""
    from namm_lab.train import families

    return families.family(given.get("family", families.DEFAULT))
