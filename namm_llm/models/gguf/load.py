"""A model and its tokenizer from a GGUF file alone, offline.

Nothing of the file is run: a chat template is rendered by transformers in jinja's sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from namm_llm.errors import ModelError
from namm_llm.models.gguf.architectures import Architecture
from namm_llm.models.gguf.config import make_config
from namm_llm.models.gguf.file import GgufFile, open_gguf
from namm_llm.models.gguf.metadata import Metadata
from namm_llm.models.gguf.tensors import plan_weights
from namm_llm.models.gguf.tokenizer import make_tokenizer
from namm_llm.models.gguf.vocabulary import Vocabulary, read_vocabulary
from namm_llm.models.gguf.weights import (
    Change,
    MakeEmbedding,
    MakeLinear,
    WeightLoader,
    check_shapes,
    empty_model,
)

_TEMPLATE: Final = "tokenizer.chat_template"


@dataclass(frozen=True, kw_only=True, eq=False)
class GgufModel:
    """What a GGUF file holds, ready to use."""

    model: PreTrainedModel
    """On the CPU, in evaluation mode; its generation_config has every end token."""
    tokenizer: PreTrainedTokenizerBase
    """With the chat template, if the file has one."""
    path: Path
    """The file, or the first of its parts."""
    architecture: str
    """As the file names it, such as llama."""
    quantization: str
    """As people name it, such as Q4_K_M."""
    fingerprint: str
    """32 hexadecimal digits of header and samples of the weights: see `GgufFile.fingerprint`."""
    positions: int
    """Trained positions."""
    end_ids: tuple[int, ...]
    """Every token that ends an answer, the file's eos first."""
    packed_nbytes: int
    """Bytes of the weights in the file."""
    expanded: tuple[str, ...]
    """Layers that no packed kernel took, so that they were expanded, each "name (type)"."""


def load_gguf(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    make_linear: MakeLinear | None = None,
    make_embedding: MakeEmbedding | None = None,
    tokenizer_cache: Path | None = None,
    adapt: Callable[[PreTrainedConfig], None] | None = None,
    changes: Callable[[PreTrainedModel], Mapping[str, Change]] | None = None,
) -> GgufModel:
    """Load a file, a split file by any of its parts, or a folder that holds one model.

    dtype: of expanded weights and of activations. make_linear, make_embedding: make modules of
    packed rows; without them every matrix is expanded. tokenizer_cache: folder in which built
    tokenizers are kept. adapt: changes the configuration before the model is made. changes: of
    linear maps, by their names, made for the model before it has weights. ModelError, in one line,
    whatever is wrong with the file.
    """
    file = open_gguf(path)
    architecture, config = make_config(file)
    if adapt is not None:
        adapt(config)
    plan = plan_weights(file, architecture, config)
    model = _empty(file, config, dtype)
    check_shapes(model, file, plan)  # before anything that takes time
    vocabulary = read_vocabulary(file, config.vocab_size)
    tokenizer = _make_tokenizer(file, architecture, vocabulary, tokenizer_cache)
    changed = {} if changes is None else changes(model)
    loader = WeightLoader(file, plan, dtype, make_linear, make_embedding, changed)
    loader.fill(model)
    _finish(model, vocabulary)
    fingerprint = file.fingerprint
    file.release()
    return GgufModel(
        model=model,
        tokenizer=tokenizer,
        path=file.path,
        architecture=architecture.name,
        quantization=file.quantization,
        fingerprint=fingerprint,
        positions=config.max_position_embeddings,
        end_ids=tuple(vocabulary.end_ids),
        packed_nbytes=file.nbytes,
        expanded=tuple(loader.expanded),
    )


def _empty(file: GgufFile, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return empty_model(config, dtype)
    except Exception as error:  # transformers raises nearly anything of odd sizes
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{file.path} does not describe a usable model: {reason}") from error


def _make_tokenizer(
    file: GgufFile, architecture: Architecture, vocabulary: Vocabulary, cache: Path | None
) -> PreTrainedTokenizerBase:
    return make_tokenizer(
        vocabulary,
        chat_template=_chat_template(file.metadata),
        strips_after=architecture.name == "phi3" and vocabulary.model == "llama",
        cache=cache,
    )


def _chat_template(metadata: Metadata) -> str | dict[str, str] | None:
    """The file's template; a dictionary, with "default", if it has several."""
    if _TEMPLATE not in metadata:
        return None
    default = metadata.text(_TEMPLATE)
    prefix = f"{_TEMPLATE}."
    named = {
        key.removeprefix(prefix): metadata.text(key) for key in metadata if key.startswith(prefix)
    }
    return {"default": default} | named if named else default


def _finish(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Evaluation mode, and every end token: transformers' loader keeps one, and chats run on."""
    ends = vocabulary.end_ids
    make: Any = GenerationConfig
    model.generation_config = make(
        bos_token_id=vocabulary.special.get("bos"),
        eos_token_id=ends or None,
        pad_token_id=vocabulary.special.get("padding", ends[0] if ends else None),
    )
    module: nn.Module = model
    module.eval().requires_grad_(False)
