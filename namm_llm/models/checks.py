"""Checks of a model and its tokenizer, right after they are loaded."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from namm_llm.cache import ManagedCache
from namm_llm.errors import ModelError


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """ModelError if the tokenizer is not one of the `tokenizers` library; it then cuts nothing."""
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise ModelError(
            f"{name} has no tokenizer.json; convert its tokenizer with transformers' "
            "save_pretrained first."
        )
    # settings of the tokenizer's file, which would cut or fill up our texts
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


def check_model(model: PreTrainedModel, report: dict[str, Any], name: str) -> None:
    """ModelError if weights are missing or of another shape, or the cache cannot be managed.

    report: what transformers says of the loading.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"the weights of {name} lack {len(missing)} tensor{'s' if missing[1:] else ''}, first "
            f"{missing[0]}; they do not belong to its config.json."
        )
    wrong = sorted(report["mismatched_keys"])
    if wrong:
        weight, found, expected = wrong[0]
        raise ModelError(
            f"{len(wrong)} weights of {name} have another shape than its config.json says, first "
            f"{weight} with {tuple(found)} instead of {tuple(expected)}; they do not belong "
            "together."
        )
    if model._is_stateful:
        raise ModelError(
            f"{name} ({model.config.model_type}) has a state in the place of a cache; use a "
            "Llama-like model."
        )
    ManagedCache.for_model(model)  # says if its attention cannot be managed


def check_kernels(model: PreTrainedModel, name: str) -> None:
    """ModelError if the CPU kernels of bitsandbytes refuse the size of a 4-bit layer.

    Each size is tried on a copy, for one token and for several: the first use of a layer changes it
    on some CPUs.
    """
    from bitsandbytes.nn.modules import Linear4bit

    tried: set[tuple[int, int]] = set()
    for path, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        size = (layer.out_features, layer.in_features)
        if size in tried:
            continue
        tried.add(size)
        probe = copy.deepcopy(layer).eval()
        try:
            with torch.no_grad():
                for tokens in (1, 3):
                    probe(torch.zeros(1, tokens, size[1], dtype=model.dtype))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ModelError(
                f"bitsandbytes cannot multiply by {path} of {name} on this CPU, a map of "
                f"{size[0]} x {size[1]}: {str(error).splitlines()[0]}; use quantization='int4'."
            ) from error


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All tokens that end a text of this model."""
    found: set[int] = set()
    for ids in (
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
        getattr(model.config.get_text_config(), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        found.update([ids] if isinstance(ids, int) else ids or [])
    return frozenset(found)
