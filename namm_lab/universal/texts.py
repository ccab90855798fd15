"""Documents with questions, read by a language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from namm_lab.train.collection import FeatureSample, collect
from namm_lab.train.sample_source import SampleSource
from namm_lab.train.target_attention import target_attention
from namm_lab.train.teacher_forcing import teacher_forced_scores
from namm_lab.universal.domain import Domain
from namm_llm import CacheConfig
from namm_llm.models.loading import LoadedModel

_QUESTIONS = 4  # one document is judged by twice as many, and counts as so many
TASKS = ("fact", "keys", "values", "list")


class TextDomain(Domain):
    """The documents of `namm-llm train distil`, shorter for likelihoods."""

    name = "text"

    def __init__(self, loaded: LoadedModel, interval: int, length: int = 2048) -> None:
        self.interval, self._loaded = interval, loaded
        self._long = SampleSource(loaded, (length,), questions=64)
        self._short = SampleSource(loaded, (length // 2,), questions=2 * _QUESTIONS)

    def samples(self, config: CacheConfig, seed: int, count: int) -> list[FeatureSample]:
        model, found = self._loaded.model, list[FeatureSample]()
        for document in self._long.train_documents(TASKS, seed, count):
            found += collect(model, document, target_attention(model, document), config)
        return found

    @torch.no_grad()
    def likelihoods(self, configs: Sequence[CacheConfig], seed: int, count: int) -> Tensor:
        documents = self._short.eval_documents("train", ("fact",), seed, -(-count // _QUESTIONS))
        model = self._loaded.model
        scores = [teacher_forced_scores(model, each, configs)[:, 0] for each in documents]
        return torch.stack(scores).log().mean(0).exp()
