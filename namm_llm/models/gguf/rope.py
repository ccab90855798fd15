"""Rotary positions of a GGUF file as transformers' `rope_parameters`.

A file states its scaling in two places: the keys `*.rope.scaling.*`, and tensors of one factor for
each frequency (`rope_freqs.weight` of Llama 3, `rope_factors_*.weight` of Phi 3). transformers' own
loader reads neither for these architectures.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor

from namm_llm.errors import ModelError
from namm_llm.models.gguf.blocks import dequantize
from namm_llm.models.gguf.file import GgufFile

FREQUENCY_FACTORS: Final = "rope_freqs.weight"
LONG_FACTORS: Final = "rope_factors_long.weight"
SHORT_FACTORS: Final = "rope_factors_short.weight"
_KNOWN_KEYS: Final = frozenset(
    "type factor original_context_length finetuned attn_factor yarn_attn_factor yarn_ext_factor "
    "yarn_beta_fast yarn_beta_slow yarn_log_multiplier".split()
)
_CLOSE: Final = 1e-5  # factors are stored in float32
_LLAMA3_LOW: Final = (
    1.0  # low_freq_factor of every Llama 3; the tensor alone does not tell it from the others
)


def rope_parameters(file: GgufFile, prefix: str, head_dim: int, positions: int) -> dict[str, Any]:
    """Of one file: rope_type, rope_theta and what the type needs.

    Args:
        file: where the keys and tensors are.
        prefix: of its keys, the architecture's name.
        head_dim: numbers of a head that are rotated.
        positions: trained positions.

    Raises:
        ModelError: a scaling that is not known, with its key.
    """
    base = {"rope_theta": file.metadata.number(f"{prefix}.rope.freq_base", 10000.0)}
    if LONG_FACTORS in file.tensors or SHORT_FACTORS in file.tensors:
        return base | _longrope(file, prefix, head_dim, positions)
    if FREQUENCY_FACTORS in file.tensors:
        return base | _frequency_factors(file, base["rope_theta"], head_dim, positions)
    return base | _scaling(file, prefix, positions)


def _scaling(file: GgufFile, prefix: str, positions: int) -> dict[str, Any]:
    """From the keys alone. A factor without a type is linear, as in llama.cpp."""
    metadata, scope = file.metadata, f"{prefix}.rope.scaling."
    if unknown := sorted(
        key
        for key in metadata
        if key.startswith(scope) and key.removeprefix(scope) not in _KNOWN_KEYS
    ):
        raise ModelError(f"{file.path} sets {unknown[0]}, a RoPE scaling that is not known here.")
    kind = metadata.text(scope + "type", "linear")
    factor = metadata.number(scope + "factor", metadata.number(f"{prefix}.rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(file, scope, factor, positions)
    raise ModelError(
        f"{file.path} says {scope}type = {kind[:40]!r}; known are none, linear and yarn."
    )


def _yarn(file: GgufFile, scope: str, factor: float, positions: int) -> dict[str, Any]:
    metadata = file.metadata
    if metadata.number(scope + "yarn_ext_factor", 1.0) != 1.0:
        raise ModelError(
            f"{file.path} sets {scope}yarn_ext_factor, which transformers cannot express."
        )
    found: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": metadata.integer(
            scope + "original_context_length", positions, least=1
        ),
    }
    for key, name in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        if scope + key in metadata:
            found[name] = metadata.number(scope + key)
    usual = _yarn_magnitude(factor, 1.0)
    damping = metadata.get(scope + "yarn_log_multiplier", 0)
    if damping:
        usual /= _yarn_magnitude(factor, metadata.number(scope + "yarn_log_multiplier"))
    magnitude = metadata.number(scope + "yarn_attn_factor", usual)
    magnitude *= metadata.number(scope + "attn_factor", 1.0)
    if not math.isclose(magnitude, _yarn_magnitude(factor, 1.0), rel_tol=_CLOSE):
        found["attention_factor"] = magnitude
    return found


def _yarn_magnitude(factor: float, multiplier: float) -> float:
    """How much YaRN lengthens queries and keys together. Source: Peng et al. 2023, equation 22."""
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0


def _longrope(file: GgufFile, prefix: str, head_dim: int, positions: int) -> dict[str, Any]:
    """Phi 3: one list of factors up to the first trained length, another beyond it."""
    if LONG_FACTORS not in file.tensors or SHORT_FACTORS not in file.tensors:
        raise ModelError(f"{file.path} holds only one of {LONG_FACTORS} and {SHORT_FACTORS}.")
    scope = f"{prefix}.rope.scaling."
    original = file.metadata.integer(scope + "original_context_length", positions, least=2)
    found: dict[str, Any] = {
        "rope_type": "longrope",
        "long_factor": _factors(file, LONG_FACTORS, head_dim).tolist(),
        "short_factor": _factors(file, SHORT_FACTORS, head_dim).tolist(),
        "original_max_position_embeddings": original,
    }
    scale = positions / original
    usual = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    magnitude = file.metadata.number(scope + "attn_factor", usual)
    if not math.isclose(magnitude, usual, rel_tol=_CLOSE):
        found["attention_factor"] = magnitude
    return found


def _frequency_factors(
    file: GgufFile, theta: float, head_dim: int, positions: int
) -> dict[str, Any]:
    """Llama 3: the numbers that the factors come from; the factors themselves if none fit."""
    factors = _factors(file, FREQUENCY_FACTORS, head_dim)
    if bool((factors == 1).all()):
        return {"rope_type": "default"}
    solved = _solve_llama3(factors, theta, head_dim)
    if solved is not None:
        return solved
    # exact for any factors: LongRoPE with the same list at every length and no change of magnitude
    return {
        "rope_type": "longrope",
        "long_factor": factors.tolist(),
        "short_factor": factors.tolist(),
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": positions,
    }


def _factors(file: GgufFile, name: str, head_dim: int) -> Tensor:
    """One positive factor a frequency [head_dim / 2], in float64."""
    factors = dequantize(file.raw(name), file.tensors[name].type_name).flatten().double()
    if factors.shape != (head_dim // 2,) or not bool(((factors > 0) & factors.isfinite()).all()):
        raise ModelError(
            f"{file.path} is damaged: {name} must hold {head_dim // 2} numbers above zero, half a "
            "head."
        )
    return factors


def llama3_factors(theta: float, head_dim: int, scaling: dict[str, Any]) -> Tensor:
    """What llama.cpp stores for Llama 3's scaling [head_dim / 2], float64.

    Source: Llama 3.1's reference code; transformers' `rope_type` llama3.
    """
    steps = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    waves = 2 * math.pi * theta**steps
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (scaling["original_max_position_embeddings"] / waves - low) / (high - low)
    return 1 / torch.lerp(
        torch.tensor(1 / factor).double(), torch.ones(()).double(), smooth.clamp(0, 1)
    )


def _solve_llama3(factors: Tensor, theta: float, head_dim: int) -> dict[str, Any] | None:
    """Llama 3's four numbers from the stored factors; None if the factors do not follow from any.

    Between the shortest and the longest waves, 1/factor is linear in 1/wave length: two frequencies
    there give high_freq_factor and the original length, as low_freq_factor is 1 in every Llama 3.
    """
    factor = float(factors.max())
    middle = ((factors > 1 + _CLOSE) & (factors < factor * (1 - _CLOSE))).nonzero().flatten()
    if len(middle) < 2:
        return None
    waves = 2 * math.pi * theta ** (middle.double() * 2 / head_dim)
    smooth = (1 / factors[middle] - 1 / factor) / (1 - 1 / factor)
    slope = float((smooth[0] - smooth[-1]) / (1 / waves[0] - 1 / waves[-1]))
    start = float(smooth[0] - slope / waves[0])
    if slope <= 0 or start >= 0:
        return None
    high = _LLAMA3_LOW - _LLAMA3_LOW / start
    solved = {
        "rope_type": "llama3",
        "factor": float(round(factor, 4)),
        "low_freq_factor": _LLAMA3_LOW,
        "high_freq_factor": float(round(high, 3)),
        "original_max_position_embeddings": round(slope * (high - _LLAMA3_LOW)),
    }
    again = llama3_factors(theta, head_dim, solved)
    return solved if bool(torch.isclose(again, factors, rtol=_CLOSE).all()) else None
