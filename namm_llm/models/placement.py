"""On which device each layer of a model computes, so that its part of the cache lies beside its
weights.

A device map (`device_map="auto"`) spreads a model over several cards; accelerate's hooks then bring
what goes through a layer to its device, and weights that are kept elsewhere (in the computer's
memory, on disk) too.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel


def device_of(module: nn.Module) -> torch.device:
    """Where the module computes: where its first weights are, or where accelerate brings them."""
    for part in module.modules():
        for weight in part.parameters(recurse=False):
            at = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
            return weight.device if at is None else torch.device(at)
    return torch.device("cpu")


def layer_devices(model: PreTrainedModel) -> dict[int, torch.device]:
    """The device of each layer of the decoder, by its number."""
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
    numbered = [(getattr(module, "layer_idx", None), module) for module in decoder.modules()]
    return {number: device_of(module) for number, module in numbered if isinstance(number, int)}
