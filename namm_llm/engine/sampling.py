"""How the next token is chosen from the logits of one sequence.

Each sequence has its own random generator, so that an answer does not depend on what else runs in
its batch. Works on logits `[V]` where they are: the host never waits for a token here. Knows
nothing about text, batches or the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from namm_llm.config import SamplingParams


class Sampler:
    """Chooses the tokens of one sequence; holds its random generator, and which tokens came if they
    are to be disfavoured.

    prompt: ids that count as having come for the repetition penalty.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int] = ()) -> None:
        self._greedy = params.temperature == 0
        self._repetition = float(params.repetition_penalty)
        self._presence = float(params.presence_penalty)
        self._frequency = float(params.frequency_penalty)
        self._prompt = prompt
        self._bias = params.logit_bias or {}
        self._came: Tensor | None = None
        self._counts: Tensor | None = None
        self._warpers = _warpers(params)
        # on the CPU, so that a seed means the same on every device
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def pick(self, logits: Tensor) -> Tensor:
        """The next token, int64 `[]`, for logits `[V]`."""
        scores = self._penalised(logits.float())
        if self._greedy:
            return scores.argmax()
        no_ids = cast("torch.LongTensor", torch.empty(1, 0, dtype=torch.long))
        weights = self._warpers(no_ids, scores[None])[0].softmax(-1)
        if weights.device.type == "mps":  # which has no float64
            weights = weights.cpu()
        # one number from the host and a look-up, instead of V numbers to the host
        reach = weights.double().cumsum(0)
        draw = float(torch.rand((), dtype=torch.float64, generator=self._generator))
        return (reach <= draw * reach[-1]).sum().to(logits.device)

    def came(self, token: Tensor) -> None:
        """Takes note of the token, int64 `[]`, that the answer goes on with."""
        if self._came is not None:
            self._came.index_fill_(0, token[None], True)
        if self._counts is not None:
            self._counts.scatter_add_(0, token[None], self._counts.new_ones(1))

    def _penalised(self, scores: Tensor) -> Tensor:
        """Scores `[V]` after the bias, and the penalties for tokens that came."""
        if self._bias:
            tokens = torch.tensor(list(self._bias), device=scores.device)
            scores = scores.index_add(0, tokens, scores.new_tensor(list(self._bias.values())))
        if self._repetition != 1:
            scores = self._repeated(scores)
        if self._presence or self._frequency:
            if self._counts is None:
                self._counts = torch.zeros_like(scores)
            # https://platform.openai.com/docs/advanced-usage: of the answer's tokens alone
            scores = scores - self._frequency * self._counts
            scores = scores - self._presence * (self._counts > 0)
        return scores

    def _repeated(self, scores: Tensor) -> Tensor:
        """As transformers' `RepetitionPenaltyLogitsProcessor`, which wants all ids from the host
        for each token.
        """
        if self._came is None:
            self._came = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
            self._came[torch.tensor(self._prompt, dtype=torch.int64, device=scores.device)] = True
        less = torch.where(scores < 0, scores * self._repetition, scores / self._repetition)
        return torch.where(self._came, less, scores)


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    """In the order in which transformers' own `generate` applies them."""
    warpers = LogitsProcessorList()
    if params.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p is not None and params.top_p < 1:
        warpers.append(TopPLogitsWarper(float(params.top_p)))
    if params.min_p:
        warpers.append(MinPLogitsWarper(float(params.min_p)))
    return warpers
