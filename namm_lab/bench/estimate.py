"""The costs of a plan's cells, for who wants to know before anything is loaded."""

from __future__ import annotations

import torch
from transformers import AutoConfig

from namm_lab.bench.cost import Cost, cost_of
from namm_lab.bench.model import name_of
from namm_lab.bench.plan import Benchmark
from namm_lab.bench.shapes import Shape, shape_named
from namm_llm import ModelError
from namm_llm.models.locate import locate


def costs_of(plan: Benchmark) -> list[tuple[str, list[tuple[str, Cost]]]]:
    """For each quantisation and batch a title, and the costs with the label of their setting.
    Raises ModelError.
    """
    shape, dtype = _shape(plan)
    tables: dict[str, list[tuple[str, Cost]]] = {}
    for cell in plan.cells():
        kind = cell.quantization or str(dtype).removeprefix("torch.")
        title = f"{name_of(plan)}: {shape.parameters / 1e9:.2f} billion weights in {kind}"
        title += f", {cell.batch} prompts" if cell.batch > 1 else ""
        lines = tables.setdefault(title, [])
        for config, budget in plan.configs():
            bits = f"{config.kv_bits}-bit" if config.kv_bits is not None else None
            label = " ".join(part for part in (config.policy.name, budget, bits) if part)
            lines.append(
                (label, cost_of(shape, cell.length, config, dtype, cell.quantization, cell.batch))
            )
    return list(tables.items())


def _shape(plan: Benchmark) -> tuple[Shape, torch.dtype]:
    """Sizes of the plan's model, from its config.json alone."""
    if plan.shape is not None:
        shape = shape_named(plan.shape, plan.layers)
        return shape, plan.torch_dtype(shape)
    assert plan.model is not None
    try:
        config = AutoConfig.from_pretrained(locate(plan.model) or plan.model)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the sizes of {plan.model} cannot be read: {str(error).splitlines()[0]}"
        ) from error
    shape = Shape.of_config(config, plan.model)
    return shape, plan.torch_dtype(shape)
