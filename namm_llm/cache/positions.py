"""Compact positions: retained tokens move so that a text of any length is read within the positions
that a model was trained on.

RoPE sees distances alone. So all heads of all layers share one position of the window's first
token, which goes back at each eviction step. A retained token keeps its distance to the window as
far as there are positions; older ones stand one behind the other at the first positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.attention.rope import Rotation, rotation_of
from namm_llm.config import CacheConfig
from namm_llm.errors import ModelError
from namm_llm.tokens import HeadTokens, RaggedTokens, quantise

# kinds whose frequencies change with the length of the text, so that old keys cannot be turned
_CHANGING = ("dynamic", "longrope")


@dataclass(frozen=True)
class CompactPositions:
    """How the retained tokens of one model are moved to compact positions."""

    rotation: Rotation
    """Of the managed layers."""
    trained: int
    """Positions that the model was trained on."""

    def start_after(self, config: CacheConfig, seen: int) -> int | None:
        """Position of the first token behind an eviction step at `seen` tokens; None where it keeps
        its original one.
        """
        next_step = (seen // config.interval + 1) * config.interval
        if config.positions == "compact" or (config.may_compact and next_step > self.trained):
            return min(seen, self.room(config))
        return None

    def room(self, config: CacheConfig) -> int:
        """Most tokens that a head may retain: a whole window stands behind them."""
        return self.trained - config.interval

    def with_unrotated(self, head: HeadTokens, positions: Tensor) -> HeadTokens:
        """The same tokens, whose keys are at these positions, with unrotated keys.

        In less than float32 a key that is turned from step to step would be rounded every time.
        """
        if head.unrotated is not None:
            return head
        unrotated = self.rotation.turn_each(head.floats().keys, -positions)
        if head.scales is None:
            return replace(head, unrotated=unrotated.to(head.keys.dtype))
        steps, scales = quantise(unrotated)
        return replace(head, unrotated=steps, unrotated_scales=scales.to(head.scales.dtype))

    def compacted(
        self, tokens: RaggedTokens, was: Sequence[Tensor], seen: int, start: int
    ) -> RaggedTokens:
        """The tokens with their keys turned to the positions that they have before a window which
        begins with the token `seen` of the text, at the position `start`.

        was: `[N_g]` of each head, the positions at which its keys are now.
        """
        to = [compact_positions(head.positions, seen, start) for head in tokens.heads()]
        return turned(self.rotation, tokens, was, to)


def compact_positions(places: Tensor, seen: int, start: int) -> Tensor:
    """Positions `[N]` of one head's tokens at these ascending places in the text, before a window
    which begins with the token `seen`, at the position `start`.

    The distances of the text, and the first positions for what is too old for them.
    """
    first = torch.arange(len(places), device=places.device)
    return torch.maximum(first, places.long() + (start - seen))


def turned(
    rotation: Rotation, tokens: RaggedTokens, was: Sequence[Tensor], to: Sequence[Tensor]
) -> RaggedTokens:
    """The tokens with the keys of each head turned from the positions `was` `[N_g]` to `to`."""
    heads = zip(tokens.heads(), was, to, strict=True)
    parts = [_turned(rotation, head, before, after) for head, before, after in heads]
    keys = torch.cat([key for key, _ in parts])
    if tokens.scales is None:
        return replace(tokens, keys=keys)
    scales = torch.cat([torch.cat([scale for _, scale in parts]), tokens.scales[:, 1:]], 1)
    return replace(tokens, keys=keys, scales=scales)


def _turned(rotation: Rotation, head: HeadTokens, was: Tensor, to: Tensor) -> tuple[Tensor, Tensor]:
    """Keys `[N, D]`, and the scale of each `[N, 1]` if they are int8."""
    if head.unrotated is None:
        keys = rotation.turn_each(head.floats().keys, to - was)
    else:
        scales = head.unrotated_scales
        source = head.unrotated if scales is None else head.unrotated.float() * scales.float()
        keys = rotation.turn_each(source, to)
    if head.scales is None:
        return keys.to(head.keys.dtype), keys
    steps, scale = quantise(keys)
    return steps, scale.to(head.scales.dtype)


class GivenPositions:
    """The positions of the model's current call, fetched from the device once for all layers."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, list[list[int]]] | None = None

    def on_host(self, positions: Tensor | None) -> list[list[int]] | None:
        """Positions `[B, T]` as numbers; None if the model gives none, or of another shape."""
        if positions is None or positions.dim() != 2:
            return None
        if self._last is None or self._last[0] is not positions:
            self._last = positions, positions.tolist()
        return self._last[1]


def compact_positions_of(
    model: PreTrainedModel, configs: Sequence[CacheConfig]
) -> CompactPositions | None:
    """How these settings move a model's tokens; None if they never do, or the model cannot and it
    was not asked for.

    Raises ModelError if it was asked for.
    """
    if not any(config.may_compact for config in configs):
        return None
    try:
        found = CompactPositions(_checked_rotation(model), _trained(model))
        for config in configs:
            if found.room(config) <= 0:
                raise ModelError(
                    f"an interval of {config.interval} tokens leaves no room in the "
                    f"{found.trained} positions that {type(model).__name__} was trained on; use a "
                    "smaller interval."
                )
    except ModelError:
        if any(config.positions == "compact" for config in configs):
            raise
        return None
    return found


def _checked_rotation(model: PreTrainedModel) -> Rotation:
    text = model.config.get_text_config(decoder=True)
    given = getattr(text, "rope_parameters", None) or {}
    # one dictionary, or one for each kind of layer
    parameters = given.get("full_attention", given)
    kind = parameters.get("rope_type", "default")
    if kind in _CHANGING or "mrope_section" in parameters:
        kind = "mrope" if "mrope_section" in parameters else kind
        raise ModelError(
            f"positions='compact' cannot be used with {type(model).__name__}, whose rotary "
            f"positions are of the kind {kind}; use positions='original'."
        )
    return rotation_of(model)


def _trained(model: PreTrainedModel) -> int:
    text = model.config.get_text_config(decoder=True)
    trained = getattr(text, "max_position_embeddings", None)
    if not isinstance(trained, int):
        raise ModelError(
            f"{type(model).__name__} does not say on how many positions it was trained, which "
            "positions='compact' needs; use positions='original'."
        )
    return trained
