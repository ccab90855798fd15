"""`Adapter`: low-rank changes (LoRA) of a model's linear maps, as peft's `save_pretrained` writes
them, added to the weights while the model is loaded.

Merged weights cost nothing when the model runs, and every kernel takes them as it takes others.
peft is not needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from namm_llm.errors import ModelError

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "fan_in_fan_out": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "alora_invocation_tokens": (None,),
    "layer_replication": (None,),
    "init_lora_weights": (None, True, False, "gaussian"),  # others change the model too
}
"""Settings of peft's LoRA that change what the numbers mean, with the values that are taken."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank changes of linear maps: W + scale * up @ down."""

    folder: Path
    """Where it was read from."""
    scale: float
    maps: dict[str, tuple[Tensor, Tensor]]
    """down `[r, in]` and up `[out, r]`, float32, by the name of the map in the model."""
    fingerprint: str
    """The same for the same numbers: 64 hexadecimal digits."""

    @property
    def key(self) -> tuple[str, str]:
        """The same for the same numbers in the same place."""
        return str(self.folder.resolve()), self.fingerprint

    def fingerprint_with(self, base: str) -> str:
        """32 hexadecimal digits that stand for weights of this fingerprint with the adapter."""
        return hashlib.sha256(f"{base} {self.fingerprint}".encode()).hexdigest()[:32]

    def check(self, model: PreTrainedModel, name: str) -> None:
        """ModelError unless every map is one of the model's, in its shape, with weights of its own.

        name: what the user calls the model.
        """
        head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        tied = head if model.config.tie_word_embeddings else None
        for key, (down, up) in self.maps.items():
            try:
                module = model.get_submodule(key)
            except AttributeError:
                module = None
            if not isinstance(module, nn.Linear):
                raise ModelError(
                    f"the adapter {self.folder} changes {key}, and {name} has no such linear map; "
                    "it was made for another model."
                )
            wanted, found = tuple(module.weight.shape), (up.shape[0], down.shape[1])
            if wanted != found:
                raise ModelError(
                    f"the adapter {self.folder} changes {key} of shape {list(found)}, which is "
                    f"{list(wanted)} in {name}; it was made for another model."
                )
            if module is tied:
                raise ModelError(
                    f"the adapter {self.folder} changes {key}, which shares its weights with the "
                    f"embedding of {name}; train one without it."
                )

    def merge(self, key: str, linear: nn.Linear) -> None:
        """Add the change of the map `key` to its weights, in float32, in place."""
        down, up = (part.to(linear.weight.device) for part in self.maps[key])
        merged = linear.weight.detach().float() + self.scale * (up @ down)
        linear.weight = nn.Parameter(merged.to(linear.weight.dtype), requires_grad=False)

    def merge_into(self, model: PreTrainedModel, name: str) -> None:
        """Add all changes to the weights of a model. ModelError as of `check`."""
        self.check(model, name)
        for key in self.maps:
            module = model.get_submodule(key)
            assert isinstance(module, nn.Linear)
            self.merge(key, module)


def read_adapter(folder: str | os.PathLike[str]) -> Adapter:
    """The adapter of a folder. ModelError, in one line, if there is none or it is of a kind that is
    not known here.
    """
    folder = Path(folder).expanduser()
    config = _config(folder)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ModelError(f"{folder / CONFIG_FILE} names no rank (r) and lora_alpha.")
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {WEIGHTS_FILE}; copy the whole adapter.") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or cut short: {error}. Copy or train it again."
        ) from error
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    maps = _maps(path, tensors, rank)
    return Adapter(folder, float(scale), maps, _fingerprint(scale, maps))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} is no adapter: it has no {CONFIG_FILE}; name the folder that `namm-llm "
            "train adapt` or peft's save_pretrained wrote."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy or train it again.") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ModelError(f"{path} describes {kind or 'nothing'}; only peft's LORA is known here.")
    for name, taken in _PLAIN.items():
        if config.get(name) not in taken:
            raise ModelError(
                f"{path} has {name} {config[name]!r}, which is not known here; merge the adapter "
                "into the model with peft, and load that folder."
            )
    return dict(config)


def _maps(path: Path, tensors: Mapping[str, Tensor], rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    maps = {}
    for key in sorted(tensors):
        name = key.removeprefix(_PREFIX).removesuffix(_DOWN).removesuffix(_UP)
        down, up = tensors.get(f"{_PREFIX}{name}{_DOWN}"), tensors.get(f"{_PREFIX}{name}{_UP}")
        if down is None or up is None or not key.startswith(_PREFIX):
            raise ModelError(
                f"{path} holds {key}, which is not one of the two matrices of a LoRA; it is "
                "another kind of adapter, or damaged."
            )
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != rank or up.shape[1] != rank:
            raise ModelError(
                f"{path} is damaged: {name} has the shapes {list(down.shape)} and "
                f"{list(up.shape)}; the rank is {rank}."
            )
        maps[name] = (down.float(), up.float())
    if not maps:
        raise ModelError(f"{path} holds no tensors; train the adapter again.")
    return maps


def _fingerprint(scale: float, maps: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    digest = hashlib.sha256(repr(float(scale)).encode())
    for name, parts in sorted(maps.items()):
        for part in parts:
            digest.update(f"{name} {list(part.shape)} ".encode())
            digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
