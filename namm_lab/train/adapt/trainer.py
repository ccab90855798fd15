"""`AdapterTraining`: LoRA by peft, while the cache evicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from namm_lab.train.adapt.checkpoint import AdapterFiles
from namm_lab.train.adapt.reading import read
from namm_lab.train.adapt.samples import AdaptSample, TextSource
from namm_lab.train.adapt.settings import AdaptSettings
from namm_lab.train.adapt.visible import logits_of
from namm_llm import CacheConfig, UsageError

_LARGEST_GRADIENT = 1.0  # norm to which larger ones are cut
Report = Callable[[dict[str, float]], None]


class AdapterTraining:
    """Trains an adapter step by step; a step depends on nothing but its number and what the steps
    before it learnt.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        source: TextSource,
        config: CacheConfig,
        settings: AdaptSettings,
    ) -> None:
        """model: in floats; it is changed in place. config: what is evicted.

        Raises UsageError for a cache that passages are too short for, or whose numbers are rounded.
        """
        if config.kv_bits is not None:
            raise UsageError("adapt trains with keys and values as computed; leave kv_bits out.")
        if settings.length < config.interval and config.policy.evicts:
            raise UsageError(
                f"passages of {settings.length} tokens never reach an eviction step at an interval "
                f"of {config.interval}: give a larger --length or a smaller --interval."
            )
        torch.manual_seed(settings.seed)  # the first numbers of the adapter
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=2 * settings.rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            # peft asks for a name that transformers has renamed
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            self.adapted = cast(PeftModel, get_peft_model(model, lora))
        self.adapted.eval()
        self._source, self._config, self._settings = source, config, settings
        named = self.adapted.named_parameters()
        self.weights = {name: weight for name, weight in named if weight.requires_grad}
        self.optimizer = torch.optim.AdamW(self.weights.values(), weight_decay=0.0)

    def run(self, files: AdapterFiles, report: Report, stop: Callable[[], bool]) -> int:
        """Train from the last checkpoint on until the end, or until `stop` says so after a step;
        the steps that were done in all.
        """
        step = files.resume(self)
        while step < self._settings.steps:
            row = self.step(step)
            step += 1
            files.save(self, step, row)
            report({"step": step, **row})
            if stop():
                break
        return step

    def step(self, number: int) -> dict[str, float]:
        """One step of the optimizer, number 0, 1, ...; the mean loss of each kind."""
        losses: dict[str, list[float]] = {}
        for turn in range(number * self._settings.batch, (number + 1) * self._settings.batch):
            kind = self._settings.losses[turn % len(self._settings.losses)]
            sample = self._source.sample(kind, f"{self._settings.seed} {turn}")
            loss = self.loss(sample)
            (loss / self._settings.batch).backward()  # type: ignore[no-untyped-call]
            losses.setdefault(kind, []).append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(self.weights.values(), _LARGEST_GRADIENT)
        self.optimizer.param_groups[0]["lr"] = self._settings.rate_of(number)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {kind: sum(found) / len(found) for kind, found in losses.items()}

    def loss(self, sample: AdaptSample) -> Tensor:
        """Mean loss of the target's tokens in nats, with gradients."""
        model: Any = self.adapted.get_base_model()
        evicts = sample.loss != "full"
        evicted_at = read(model, sample, self._config).evicted_at if evicts else {}
        device = next(iter(self.weights.values())).device
        ids = torch.tensor([*sample.document, *sample.prompt, *sample.target], device=device)
        logits = logits_of(model, ids, evicted_at, len(sample.target))
        return cross_entropy(logits.float(), ids[-len(sample.target) :])
