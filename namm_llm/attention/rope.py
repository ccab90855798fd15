"""Rotary positions (RoPE, arXiv 2104.09864): moving queries and keys that are already rotated to
another position.

Rotations add up, so what stands at position p becomes the same at p + shift without the model and
without its values before RoPE.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from namm_llm.errors import ModelError


@dataclass(frozen=True)
class Rotation:
    """The rotation of a model's queries and keys by their positions."""

    frequencies: tuple[float, ...]
    """Radians of each of P planes for a step of one position. Plane i is made of the numbers i and
    i + P of a head, the layout of transformers; numbers from 2 P on are not rotated.
    """

    def turn(self, queries: Tensor, shift: int, scale: float = 1.0) -> Tensor:
        """Rotated queries `[..., D]` moved `shift` positions on, times `scale`, in float32."""
        planes = len(self.frequencies)
        cos, sin = _turn(self.frequencies, shift, scale, queries.device)
        queries = queries.float()
        turned = queries * scale  # numbers that are not rotated stay like this
        first, second, _ = torch.tensor_split(queries, [planes, 2 * planes], dim=-1)
        torch.mul(first, cos, out=turned[..., :planes]).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=turned[..., planes : 2 * planes]).addcmul_(first, sin)
        return turned

    def factors(self, shifts: Tensor) -> Tensor:
        """The rotations by `shifts` `[S]` positions as complex numbers `[S, P]`; their mean is the
        average rotation.
        """
        frequencies = torch.tensor(self.frequencies, dtype=torch.float64, device=shifts.device)
        angle = (shifts[:, None] * frequencies).remainder(2 * torch.pi).float()
        return torch.complex(angle.cos(), angle.sin())

    def apply(self, vectors: Tensor, factors: Tensor) -> Tensor:
        """Queries or keys `[..., D]` times `factors` `[..., P]`, in float32."""
        planes = len(self.frequencies)
        first, second, rest = torch.tensor_split(vectors.float(), [planes, 2 * planes], dim=-1)
        turned = torch.complex(first.contiguous(), second.contiguous()) * factors
        return torch.cat([turned.real, turned.imag, rest], -1)

    def turn_each(self, rows: Tensor, shifts: Tensor) -> Tensor:
        """Rotated rows `[N, D]`, each moved by its own number of positions (int `[N]`), in
        float32.
        """
        planes = len(self.frequencies)
        steps = torch.tensor(self.frequencies, dtype=torch.float64, device=rows.device)
        angle = shifts.to(rows.device, torch.float64)[:, None] * steps
        cos, sin = angle.cos().float(), angle.sin().float()
        turned = rows.to(torch.float32, copy=True)
        first, second, _ = torch.tensor_split(rows.float(), [planes, 2 * planes], dim=-1)
        torch.mul(first, cos, out=turned[:, :planes]).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=turned[:, planes : 2 * planes]).addcmul_(first, sin)
        return turned


# all heads and layers turn alike, and a copy to a device waits
@lru_cache(maxsize=8)
def _turn(
    frequencies: tuple[float, ...], shift: int, scale: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, times `scale`."""
    with torch.inference_mode(False):
        # a float32 angle of many positions is off by more than float32 attention
        angle = (torch.tensor(frequencies, dtype=torch.float64) * shift).remainder(2 * torch.pi)
        cos, sin = ((scale * part).float().to(device) for part in (angle.cos(), angle.sin()))
    return cos, sin


def rotation_of(model: PreTrainedModel) -> Rotation:
    """The rotation of the text decoder's layers with full attention, checked against the model's
    own code.

    Raises ModelError if the model has none of the usual layout.
    """
    for module in model.get_decoder().modules():  # type: ignore[no-untyped-call]
        frequencies = getattr(module, "inv_freq", None)
        if frequencies is None:
            frequencies = getattr(module, "full_attention_inv_freq", None)
        if isinstance(frequencies, Tensor) and frequencies.device.type != "meta":
            rotation = Rotation(tuple(frequencies.tolist()))
            if _agrees(rotation, module, frequencies.device):
                return rotation
    raise ModelError(
        f"{type(model).__name__} has no rotary positions of the usual layout, which this policy "
        "needs; choose another, such as keydiff."
    )


@torch.no_grad()
def _agrees(
    rotation: Rotation, module: nn.Module, device: torch.device, start: int = 7, shift: int = 301
) -> bool:
    """Whether turning by `shift` gives what the model's own code gives at position `start +
    shift`.
    """
    query = torch.linspace(-1, 1, 2 * len(rotation.frequencies), device=device).view(1, 1, 1, -1)
    try:
        before, after = (_rotated(module, query, at) for at in (start, start + shift))
    except Exception:  # another model's code may raise anything at inputs that are not its own
        return False
    return torch.allclose(rotation.turn(before, shift), after, atol=1e-3)


def _rotated(module: nn.Module, query: Tensor, position: int) -> Tensor:
    """`query` `[1, 1, 1, D]` at this position, by the model's own code."""
    apply = sys.modules[module.__class__.__module__].apply_rotary_pos_emb
    has_kinds = "layer_type" in inspect.signature(module.forward).parameters
    kind = {"layer_type": "full_attention"} if has_kinds else {}
    at = torch.tensor([[position]], device=query.device)
    try:
        cos, sin = module(query[0], at, **kind)
        rotated: Tensor = apply(query, query, cos, sin)[0]
    except (IndexError, RuntimeError):
        # mrope takes three coordinates; of equal ones it is RoPE, also for a shift of all three.
        # A shift counts tokens where mrope counts fewer, which is harmless for ranking.
        cos, sin = module(query[0], at.expand(3, 1, 1), **kind)
        rotated = apply(query, query, cos, sin)[0]
    return rotated
