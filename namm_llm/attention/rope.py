"""Rotary positions (RoPE, arXiv 2104.09864): turning queries that are already rotated to a later
position.

Rotations add up, so a query of position p becomes the same query at p + shift without the model and
without what it was before RoPE.
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
    """frequencies: radians of each of P planes for a step of one position. Plane i is made of the
    numbers i and i + P of a head, the layout of transformers; numbers from 2 P on are not rotated.
    """

    frequencies: tuple[float, ...]

    def turn(self, queries: Tensor, shift: int, scale: float = 1.0) -> Tensor:
        """Rotated queries `[..., D]` as they would be `shift` positions later, times `scale`,
        float32.
        """
        planes = len(self.frequencies)
        cos, sin = _turn(self.frequencies, shift, scale, queries.device)
        queries = queries.float()
        turned = queries * scale  # what is not rotated stays like this
        first, second, _ = torch.tensor_split(queries, [planes, 2 * planes], dim=-1)
        torch.mul(first, cos, out=turned[..., :planes]).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=turned[..., planes : 2 * planes]).addcmul_(first, sin)
        return turned


@lru_cache(maxsize=8)  # all heads and layers turn alike, and a copy to a device waits
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
    """The rotation of the model's layers with full attention; checked against the model's own.
    ModelError if there is none that we know.
    """
    for module in model.modules():
        frequencies = next(
            (
                f
                for name in ("inv_freq", "full_attention_inv_freq")
                if (f := getattr(module, name, None)) is not None
            ),
            None,
        )
        if isinstance(frequencies, Tensor) and frequencies.device.type != "meta":
            rotation = Rotation(tuple(frequencies.tolist()))
            if _agrees(rotation, module, frequencies.device):
                return rotation
    raise ModelError(
        f"{type(model).__name__} has no rotary positions of the usual layout, which this policy needs; choose another, such as keydiff"
    )


@torch.no_grad()
def _agrees(
    rotation: Rotation, module: nn.Module, device: torch.device, start: int = 7, shift: int = 301
) -> bool:
    """Whether turning by `shift` gives what the model's own code gives at position `start + shift`."""
    apply = getattr(sys.modules[module.__class__.__module__], "apply_rotary_pos_emb", None)
    if apply is None:
        return False
    query = torch.linspace(-1, 1, 2 * len(rotation.frequencies), device=device).view(1, 1, 1, -1)
    typed = (
        {"layer_type": "full_attention"}
        if "layer_type" in inspect.signature(module.forward).parameters
        else {}
    )

    def at(position: int) -> Tensor:
        cos, sin = module(query[0], torch.tensor([[position]], device=device), **typed)
        rotated: Tensor = apply(query, query, cos, sin)[0]
        return rotated

    return torch.allclose(rotation.turn(at(start), shift), at(start + shift), atol=1e-3)
