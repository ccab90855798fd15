"""Which numbers a second reading is computed with."""

from __future__ import annotations

from functools import lru_cache

import torch


def reading_type(device: torch.device) -> torch.dtype:
    """Of the products of a second reading: bfloat16 on a CPU that multiplies it as it is, else
    float32.

    What is found ranks tokens, whose attention spans decades; bfloat16 is off by a few hundredths
    of its logarithm. What is attended to is computed in the model's own type always.
    """
    return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bfloat16() else torch.float32


@lru_cache(maxsize=1)
def _cpu_multiplies_bfloat16() -> bool:
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
