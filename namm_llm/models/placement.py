"""Where a model computes and in which dtype, from what a user writes."""

from __future__ import annotations

from typing import Any, Literal

import torch

from namm_llm.config import Device
from namm_llm.errors import ModelError, UsageError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DEVICE_MAPS = ("balanced", "balanced_low_0", "sequential")


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | Literal["auto"]:
    """The dtype of a setting. UsageError for one that there is not."""
    if dtype == "auto":
        return "auto"
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in _DTYPES.values():
        raise UsageError(f"dtype must be auto, {', '.join(_DTYPES)}, not {dtype!r}.")
    return found


def device_map_of(device: Device) -> dict[str, Any] | str:
    """The device map for transformers that a setting means.

    Raises UsageError for no device, ModelError for one that is not there.
    """
    if isinstance(device, dict) or device in _DEVICE_MAPS:
        return device
    kind, _, number = device.partition(":")
    if device == "auto":
        has_mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    elif kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        known = ", ".join(("auto", "cpu", "cuda", "mps", *_DEVICE_MAPS))
        raise UsageError(f"device must be one of {known} or a device map, not {device!r}.")
    elif kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        has_cuda = torch.version.cuda or torch.version.hip
        build = "" if has_cuda else ", and this torch is a build without CUDA"
        raise ModelError(
            f"device {device} is not there: {torch.cuda.device_count()} CUDA devices are "
            f"visible{build}; use device='cpu'."
        )
    elif kind == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device mps is not there (it needs an Apple GPU); use device='cpu'.")
    return {"": device}
