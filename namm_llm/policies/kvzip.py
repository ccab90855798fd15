"""KVzip: the attention that each token gets while the model repeats the text (arXiv 2505.23416)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import ObservingPolicy, check_whole
from namm_llm.tokens import HeadTokens

_QUERIES = 64  # whose logits are computed at a time: they stay in a core's own cache


@dataclass(frozen=True)
class KVzip(ObservingPolicy):
    """Keeps the tokens with the largest attention while the text is repeated, chunk by chunk.

    Nothing is evicted before the whole text was read. Then the model is asked to repeat each chunk
    and given it word for word (teacher forcing). That costs a second prefill, and until then the
    memory of a full cache. Tokens that come later stay.
    """

    name: ClassVar[str] = "kvzip"
    comparable: ClassVar[bool] = True
    chunk: int = 2048
    """Tokens that are repeated at once; fewer where the model has no more positions."""
    num_sinks: int = 4
    """First tokens that always stay, as those of a chat template before the text do."""

    def __post_init__(self) -> None:
        check_whole("chunk", self.chunk, 1)
        check_whole("num_sinks", self.num_sinks, 0)

    @property
    def repeats(self) -> int:
        return self.chunk

    @property
    def state_width(self) -> int:
        return 1

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float16

    @property
    def sinks(self) -> int:
        return self.num_sinks

    def update_repeated(
        self, tokens: HeadTokens, observation: Observation, span: tuple[int, int], sinks: int
    ) -> Tensor:
        """As the authors' code does, attention is normalised over the first tokens, the chunk and
        its repetition alone.
        """
        at, start = tokens.positions, observation.query_start
        bounds = torch.tensor([sinks, *span, observation.new_start], device=at.device)
        before, first, last, behind = torch.searchsorted(at, bounds).tolist()
        spread = [slice(before), slice(first, last), slice(behind, None)]
        keys = torch.cat([tokens.keys[part] for part in spread]).float() * observation.scale
        chunk = slice(before, before + last - first)
        repeated = at[behind:]
        best = keys.new_full((last - first,), -torch.inf)
        for begin in range(0, observation.queries.shape[1], _QUERIES):
            queries = observation.queries[:, begin : begin + _QUERIES].float()
            asked = torch.arange(queries.shape[1], device=at.device) + start + begin
            logits = queries @ keys.T  # [R, Q, sinks + chunk + repetition]
            logits[..., chunk.stop :].masked_fill_(repeated > asked[:, None], -torch.inf)
            largest = (logits[..., chunk] - logits.logsumexp(-1, keepdim=True)).amax((0, 1))
            best = torch.maximum(best, largest)
        state = tokens.state.float().clone()
        state[first:last, 0] = torch.maximum(state[first:last, 0], best.exp())
        return state

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        return tokens.state[:, 0].float()
