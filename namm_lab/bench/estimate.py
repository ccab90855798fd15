"""The costs of a plan's cells, for who wants to know before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import AutoConfig

from namm_lab.bench.cost import Cost, cost_of
from namm_lab.bench.model import name_of
from namm_lab.bench.plan import Benchmark
from namm_lab.bench.shapes import Shape, shape_named
from namm_llm import ModelError
from namm_llm.models.card import ModelCard, read_card
from namm_llm.models.gguf import is_gguf, open_gguf
from namm_llm.models.gguf.config import make_config
from namm_llm.models.locate import locate


def costs_of(plan: Benchmark) -> list[tuple[str, list[tuple[str, Cost]]]]:
    """For each quantisation and batch a title, and the costs with the label of their setting.
    Raises ModelError.
    """
    shape, dtype, packed = _shape(plan)
    tables: dict[str, list[tuple[str, Cost]]] = {}
    for cell in plan.cells():
        kind = cell.quantization or str(dtype).removeprefix("torch.")
        if packed is not None:
            kind = packed.quantization
        title = f"{name_of(plan)}: {shape.parameters / 1e9:.2f} billion weights in {kind}"
        title += f", {cell.batch} prompts" if cell.batch > 1 else ""
        lines = tables.setdefault(title, [])
        for config, budget in plan.configs():
            bits = f"{config.kv_bits}-bit" if config.kv_bits is not None else None
            label = " ".join(part for part in (config.policy.name, budget, bits) if part)
            cost = cost_of(shape, cell.length, config, dtype, cell.quantization, cell.batch)
            if packed is not None:
                cost = replace(cost, weights_nbytes=packed.nbytes)
            lines.append((label, cost))
    return list(tables.items())


def beyond_positions(plan: Benchmark) -> str | None:
    """A line if texts of the plan are longer than what its model was trained on."""
    positions, longest = _shape(plan)[0].positions, max(plan.lengths)
    if longest <= positions:
        return None
    return (
        f"{name_of(plan)} was trained on {positions} positions, and {longest} tokens do not fit: a "
        "budget saves memory, not positions."
    )


def _shape(plan: Benchmark) -> tuple[Shape, torch.dtype, ModelCard | None]:
    """Sizes of the plan's model, from its config.json alone, the precision it computes in, and what
    a GGUF file says of itself.
    """
    if plan.shape is not None:
        shape = shape_named(plan.shape, plan.layers)
        return shape, plan.torch_dtype(shape), None
    assert plan.model is not None
    place = locate(plan.model)
    if place is not None and is_gguf(place):
        shape = Shape.of_config(make_config(open_gguf(place))[1], plan.model)
        return shape, plan.torch_dtype(shape), read_card(place)
    try:
        config = AutoConfig.from_pretrained(place or plan.model)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the sizes of {plan.model} cannot be read: {str(error).splitlines()[0]}"
        ) from error
    shape = Shape.of_config(config, plan.model)
    return shape, plan.torch_dtype(shape), None
