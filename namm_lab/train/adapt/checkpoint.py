"""The folder of an adapter in training.

    adapter_config.json        what peft and `--adapter` need to know, written first
    adapter_model.safetensors  the adapter so far, usable at any time
    checkpoint.safetensors     adapter and optimizer, what the same call goes on from
    log.jsonl                  one line for each step

Every file is replaced as a whole, so a run can be killed at any moment and goes on as if it had not
been.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor

from namm_lab.train.training_file import read_training_file, replace_training_file
from namm_llm import UsageError

if TYPE_CHECKING:
    from namm_lab.train.adapt.trainer import AdapterTraining

VERSION = 1
_HEADER = "namm_adapter"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class AdapterFiles:
    """The four files."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """identity: what must be the same for the run to be resumed."""
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))  # as it comes back from a file

    @property
    def checkpoint(self) -> Path:
        """What a run goes on from."""
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """A line for each step."""
        return self.folder / "log.jsonl"

    def remove(self) -> None:
        """Start over."""
        for name in ("adapter_config.json", "adapter_model.safetensors", "report.json"):
            (self.folder / name).unlink(missing_ok=True)
        self.checkpoint.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)

    def resume(self, training: AdapterTraining) -> int:
        """Give the training the state of a run that was begun here; the steps that it did, 0 if
        there is none. UsageError if it was begun with other settings.
        """
        if not self.checkpoint.is_file():
            return 0
        header, tensors = read_training_file(
            self.checkpoint, key=_HEADER, version=VERSION, framework="pt", what="an adapter"
        )
        for name in sorted({*header["identity"], *self._identity}):
            before, now = header["identity"].get(name), self._identity.get(name)
            if before != now:
                raise UsageError(
                    f"{self.folder} was begun with {name} {before}, not {now}: give the same "
                    "options to go on, --force to start over, or another --out."
                )
        step = int(header["step"])
        for name, weight in training.weights.items():
            weight.data.copy_(tensors[name])
            moments = {key: tensors[f"{name}.{key}"].to(weight.device) for key in _MOMENTS}
            training.optimizer.state[weight] = {"step": torch.tensor(float(step)), **moments}
        self._cut_log(step)
        return step

    def save(self, training: AdapterTraining, step: int, row: Mapping[str, float]) -> None:
        """After a step."""
        config = training.adapted.peft_config["default"].to_dict()
        plain = {
            key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**plain, "inference_mode": True}, indent=2, sort_keys=True)
        replace_training_file(self.folder / "adapter_config.json", f"{text}\n".encode())
        weights = get_peft_model_state_dict(training.adapted)
        replace_training_file(self.folder / "adapter_model.safetensors", save(_plain(weights)))
        with self.log.open("a") as log:
            log.write(json.dumps({"step": step, **row}) + "\n")
        state = training.optimizer.state
        moments = {
            f"{name}.{key}": state[weight][key]
            for name, weight in training.weights.items()
            for key in _MOMENTS
        }
        header = {"version": VERSION, "identity": self._identity, "step": step}
        # last, because a run that is killed before this repeats the step
        data = save(_plain({**training.weights, **moments}), {_HEADER: json.dumps(header)})
        replace_training_file(self.checkpoint, data)

    def _cut_log(self, step: int) -> None:
        """Leave out what was logged after the checkpoint."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.is_file() else []
        replace_training_file(self.log, "".join(lines[:step]).encode())


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
