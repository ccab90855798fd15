"""`NammWeights`: a NAMM's parameters in their parts, and the scores that they give to features."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from namm_llm.namm.bam import BamWeights, bam
from namm_llm.namm.layout import parameter_shapes


class NammWeights(NamedTuple):
    """The parts of `theta`, in the order of layout.py."""

    attention: list[Tensor]
    """The fields of `BamWeights`; empty without attention."""
    weight: Tensor
    """`[d, 1]`, of the linear score."""
    bias: Tensor
    """`[1]`."""
    hidden: list[Tensor]
    """Weights in, bias and weights out of the hidden layer; empty if there is none."""
    heads: list[Tensor]
    """Factors and summands `[heads]`; empty where no head has its own."""

    @classmethod
    def split(
        cls, theta: Tensor, features: int, attention_dim: int, mlp_hidden: int, heads: int
    ) -> NammWeights:
        """The parts of `theta` `[P]`, which share its memory."""
        shapes = parameter_shapes(features, attention_dim, mlp_hidden, heads)
        pieces = torch.split(theta, [math.prod(shape) for shape in shapes])
        found = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        start = 4 if attention_dim else 0
        stop = start + 2 + (3 if mlp_hidden else 0)
        return cls(
            found[:start], found[start], found[start + 1], found[start + 2 : stop], found[stop:]
        )

    def scores(self, features: Tensor, heads: Tensor | None) -> Tensor:
        """See `Namm.scores`."""
        layer = self.hidden
        # 16-bit scores would move tokens across the threshold, so an autocast around the model
        # must not reach in here
        with torch.autocast(features.device.type, enabled=False):
            seen = features.float()
            if self.attention:
                seen = bam(seen, BamWeights(*self.attention))
            score = linear(seen, self.weight.T, self.bias)
            if layer:
                # transposed: contiguous input goes to oneDNN, which compiles and keeps a GELU for
                # every number of tokens
                score = score + gelu(linear(seen, layer[0].T, layer[1]).mT).mT @ layer[2]
            score = score.squeeze(-1)
            if not self.heads:
                return score
            assert heads is not None, "a NAMM with heads of their own has to know which they are"
            factor, summand = self.heads
            return score * (1.0 + factor[heads]) + summand[heads]
