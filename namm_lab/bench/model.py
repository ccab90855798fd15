"""The model that is measured: a shape with random weights, or a real one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.bench.contenders import REFERENCE
from namm_lab.bench.cost import cost_of
from namm_lab.bench.machine import free_nbytes
from namm_lab.bench.plan import Benchmark, Cell
from namm_lab.bench.shapes import Shape, random_ids, random_model, shape_named
from namm_lab.bench.text import text_named
from namm_llm import ContextError, ModelError, UsageError, make_cache_config
from namm_llm.models.gguf import is_gguf
from namm_llm.models.loading import LoadedModel, load_model


@dataclass(frozen=True)
class BenchModel:
    """The model that is measured, with its sizes."""

    model: PreTrainedModel
    shape: Shape
    device: torch.device
    holder: LoadedModel | None = None
    """A model that was loaded; None for a shape."""

    def ids(self, cell: Cell) -> Tensor:
        """What is read `[B, T]`: the beginning of the cell's text, or random tokens, whose sense
        matters only to a policy. Raises ContextError or UsageError for a length that does not fit.
        """
        if cell.text is not None:
            return self._text(cell.text, cell.length).expand(cell.batch, -1).to(self.device)
        return random_ids(self.shape.vocabulary, cell.batch, cell.length).to(self.device)

    @property
    def loaded(self) -> LoadedModel:
        """The model with its tokenizer."""
        assert self.holder is not None
        return self.holder

    def _text(self, name: str, length: int) -> Tensor:
        if length > self.shape.positions:
            raise ContextError(
                f"{self.shape.name} has {self.shape.positions} positions, which is less than "
                f"{length}: give a shorter length."
            )
        text = text_named(name)
        ids = self.loaded.backend.encode(text[: 16 * length], add_special_tokens=False).ids
        if len(ids) < length:
            raise UsageError(f"{name} has {len(ids)} tokens, fewer than the {length} asked for.")
        return torch.tensor([ids[:length]])


def name_of(plan: Benchmark) -> str:
    """How rows call the model: `100m`, `8b (4 layers)`, its own name, or that of its GGUF file."""
    if plan.shape is None:
        assert plan.model is not None
        return Path(plan.model).name if is_gguf(plan.model) else plan.model
    return plan.shape if plan.layers is None else f"{plan.shape} ({plan.layers} layers)"


def load(plan: Benchmark, quantization: str | None) -> BenchModel:
    """Build or load it. Raises ModelError."""
    device = plan.torch_device()
    if plan.shape is not None:
        shape = shape_named(plan.shape, plan.layers)
        model = random_model(shape, plan.torch_dtype(shape), str(device), quantization)
        return BenchModel(model, shape, device)
    assert plan.model is not None
    quantized: Any = quantization
    loaded = load_model(plan.model, quantization=quantized, device=plan.device, dtype=plan.dtype)
    return BenchModel(
        loaded.model, Shape.of_config(loaded.model.config, loaded.model_id), loaded.device, loaded
    )


def save_model(plan: Benchmark, folder: str | os.PathLike[str]) -> str:
    """Write the plan's model, not quantised, for a process that cannot share it; the name of its
    numbers' type.
    """
    model = load(plan, None).model
    model.save_pretrained(folder)
    return str(model.dtype).removeprefix("torch.")


def check_fits(plan: Benchmark, cell: Cell) -> None:
    """Raises ModelError, with the arithmetic, if a shape and its caches need more memory than there
    is.
    """
    if plan.shape is None:
        return
    shape, device = shape_named(plan.shape, plan.layers), plan.torch_device()
    dtype, free = plan.torch_dtype(shape), free_nbytes(device)
    if cell.length > shape.positions:
        raise ContextError(
            f"shape {shape.name} has {shape.positions} positions, which is less than "
            f"{cell.length}: give a shorter length."
        )
    if free is None:
        return
    full = REFERENCE in {contender.name for contender in plan.contenders()}
    config = make_cache_config() if full else next(plan.configs())[0]
    cost = cost_of(shape, cell.length, config, dtype, cell.quantization, cell.batch)
    built = max(
        cost.weights_nbytes, shape.weights_nbytes(dtype)
    )  # they are made before they are quantised
    caches = cost.cache_nbytes * (
        2 if "decode" in plan.tasks else 1
    )  # each decoding begins with a copy
    if built + caches > free:
        copies = " and a copy of it" if "decode" in plan.tasks else ""
        raise ModelError(
            f"{name_of(plan)} does not fit: {shape.parameters / 1e9:.2f} billion weights of "
            f"{dtype.itemsize} bytes = {built / 1e9:.1f} GB, and {caches / 1e9:.1f} GB for a cache "
            f"of {cell.batch} x {cell.length} tokens{copies}, are more than the {free / 1e9:.1f} "
            "GB that are free: take a smaller shape, length or batch, fewer --layers, or see the "
            "cost with --plan."
        )
