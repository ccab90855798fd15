"""A transformers model whose weights are those of a GGUF file.

They stay packed where a module takes them so, and are expanded elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from namm_llm.errors import ModelError
from namm_llm.models.gguf.file import GgufFile
from namm_llm.models.gguf.tensors import Source, dense_weight, packed_rows, shape_of

MakeLinear = Callable[[Tensor, str, tuple[int, int], Tensor | None], nn.Module | None]
"""Makes a module that multiplies by packed rows, of: rows [out, row_bytes] (uint8), their ggml
type, (out, in), and a bias [out] or None. None if it does not take that type: it is expanded."""

MakeEmbedding = Callable[[Tensor, str, tuple[int, int], float], nn.Module | None]
"""Makes a module that looks packed rows up, of: rows [tokens, row_bytes] (uint8), their ggml type,
(tokens, width), and the factor of every embedding. None if the table is to be expanded."""

Change = Callable[[nn.Linear], nn.Module]
"""What a linear map with expanded float32 weights is replaced by."""

_EMBEDDING: Final = "model.embed_tokens"
_HEAD: Final = "lm_head"


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model without memory for its weights; what follows from the configuration is there."""
    with init_empty_weights(include_buffers=False):
        make: Any = AutoModelForCausalLM
        model = make.from_config(config, dtype=dtype)
    return cast(PreTrainedModel, model)


def check_shapes(model: PreTrainedModel, file: GgufFile, plan: dict[str, Source]) -> None:
    """ModelError unless the file has every weight of the model, in its shape, and no other."""
    wanted = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    if f"{_HEAD}.weight" not in plan:  # tied to the embedding
        wanted.pop(f"{_HEAD}.weight", None)
    if lost := sorted(name for name in wanted if name not in plan):
        raise ModelError(
            f"{file.path} lacks {len(lost)} of {len(wanted)} weights, first {lost[0]}; it is not "
            "whole."
        )
    for name, source in plan.items():
        if name not in wanted:
            raise ModelError(
                f"{file.path} holds {source.tensor}, which the model has no place for."
            )
        if (shape := shape_of(file, source)) != wanted[name]:
            raise ModelError(
                f"{file.path} is damaged: {source.tensor} has the shape {list(shape)}; "
                f"expected {list(wanted[name])}."
            )


class WeightLoader:
    """Fills an empty model from a file."""

    def __init__(
        self,
        file: GgufFile,
        plan: dict[str, Source],
        dtype: torch.dtype,
        make_linear: MakeLinear | None,
        make_embedding: MakeEmbedding | None,
        changes: Mapping[str, Change],
    ) -> None:
        self._file = file
        self._plan = plan
        self._dtype = dtype
        self._make_linear = make_linear
        self._make_embedding = make_embedding
        self._changes = changes
        self.expanded: list[str] = []
        """Packed layers that were expanded because no module took them, as "name (type)"."""

    def fill(self, model: PreTrainedModel) -> None:
        """Give every layer its weights. ModelError if one is damaged."""
        head = self._plan.get(f"{_HEAD}.weight")
        tied = head is None
        for name, module in list(model.named_modules()):
            if name == _EMBEDDING:
                self._fill_embedding(model, cast(nn.Embedding, module))
            elif isinstance(module, nn.Linear):
                source = self._plan[f"{_EMBEDDING}.weight"] if tied and name == _HEAD else None
                self._fill_linear(model, name, module, source)
            else:
                self._fill_parameters(name, module)
            self._file.release()  # else the whole file would stand beside what is made of it
        self._tie(model, tied)

    def _fill_embedding(self, model: PreTrainedModel, table: nn.Embedding) -> None:
        source = self._plan[f"{_EMBEDDING}.weight"]
        if self._make_embedding is not None:
            scale = float(getattr(table, "embed_scale", 1.0))
            shape = (table.num_embeddings, table.embedding_dim)
            packed = packed_rows(self._file, source)
            made = self._make_embedding(packed, self._type_of(source), shape, scale)
            if made is not None:
                model.set_submodule(_EMBEDDING, made)
                return
        self._expand(_EMBEDDING, "weight", table, source)

    def _fill_linear(
        self, model: PreTrainedModel, name: str, linear: nn.Linear, tied_to: Source | None
    ) -> None:
        source = tied_to or self._plan[f"{name}.weight"]
        if name in self._changes:
            for key, _ in list(linear.named_parameters()):
                plan = self._plan[f"{name}.{key}"]
                self._set(linear, key, dense_weight(self._file, plan, torch.float32))
            model.set_submodule(name, self._changes[name](linear))
            return
        if self._make_linear is not None:
            shape = (linear.out_features, linear.in_features)
            bias_source = self._plan.get(f"{name}.bias")
            bias = None if bias_source is None else self._dense(bias_source)
            packed = packed_rows(self._file, source)
            made = self._make_linear(packed, self._type_of(source), shape, bias)
            if made is not None:
                model.set_submodule(name, made)
                return
        if tied_to is not None and isinstance(model.get_submodule(_EMBEDDING), nn.Embedding):
            return  # shares the table's weight, see _tie
        self._expand(name, "weight", linear, source)
        if linear.bias is not None:
            self._set(linear, "bias", self._dense(self._plan[f"{name}.bias"]))

    def _fill_parameters(self, name: str, module: nn.Module) -> None:
        """Norms, and whatever else is no matrix."""
        for key, weight in list(module.named_parameters(recurse=False)):
            if weight.is_meta:
                self._set(module, key, self._dense(self._plan[f"{name}.{key}"]))

    def _tie(self, model: PreTrainedModel, tied: bool) -> None:
        head, table = model.get_submodule(_HEAD), model.get_submodule(_EMBEDDING)
        if tied and isinstance(head, nn.Linear) and isinstance(table, nn.Embedding):
            head.weight = table.weight

    def _expand(self, name: str, key: str, module: nn.Module, source: Source) -> None:
        if self._make_linear is not None:
            self.expanded.append(f"{name} ({self._type_of(source)})")
        self._set(module, key, self._dense(source))

    def _dense(self, source: Source) -> Tensor:
        return dense_weight(self._file, source, self._dtype)

    def _type_of(self, source: Source) -> str:
        return self._file.tensors[source.tensor].type_name

    @staticmethod
    def _set(module: nn.Module, key: str, weight: Tensor) -> None:
        setattr(module, key, nn.Parameter(weight, requires_grad=False))
