"""How much memory a device has free, and how much was in use at most."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def free_nbytes(device: torch.device) -> int | None:
    """Memory that is free on the device, or None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        return int(found[1]) * 1024
    names: Any = getattr(os, "sysconf_names", {})
    return (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if "SC_PHYS_PAGES" in names
        else None
    )


def start_peak(device: torch.device) -> int | None:
    """Count the peak from here on; bytes in use now, None where they are not known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    if _RESET.exists() and os.access(_RESET, os.W_OK):
        _RESET.write_text("5")  # VmHWM begins anew: what building the model needed does not count
    return _status("VmRSS")


def peak_nbytes(device: torch.device) -> int | None:
    """Most bytes in use since `start_peak`: of a GPU's tensors, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")  # ru_maxrss would begin with what the parent process had at the fork


def _status(field: str) -> int | None:
    if not _STATUS.exists():
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    return int(found[1]) * 1024 if found else None


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; a CPU is always done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
