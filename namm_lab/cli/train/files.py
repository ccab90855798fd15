"""The file that a command writes, and the form of the NAMM in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namm_llm.errors import UsageError

if TYPE_CHECKING:
    from namm_llm.namm import Namm


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
            f"{out} exists already: name another file with --out, or replace it with --force"
        )
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"{out} cannot be written: name a file in a folder that exists")
    return out


def family(given: dict[str, Any]) -> Namm:
    """Parameters of zero with the features and the memory that are wanted, and the probes."""
    from namm_lab.train import families

    return probing(families.family(given.get("family", families.DEFAULT)), given)


def probing(namm: Namm, given: dict[str, Any]) -> Namm:
    """The NAMM with the probes that were given, which its file will name. UsageError if it takes
    none.
    """
    if "probes" not in given:
        return namm
    if not namm.takes_probes:
        raise UsageError(
            "--probe is for a NAMM that is made for probes: choose --family probes, published-probes or both, or leave it out"
        )
    return replace(namm, probes=replace(namm.probes, texts=given["probes"]))
