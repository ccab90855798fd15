"""Model folders that see, tiny and random: what `Runner.load` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from tokenizers import AddedToken

from tests.tiny import EOS, tiny_tokenizer
from tests.vision import models

# as the templates of LLaVA and SmolVLM: parts, not texts
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_TILE_MARKS = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
SPECIAL = ["<image>", "<fake_token_around_image>", "<global-img>", *_TILE_MARKS]


def save_seeing(name: str, folder: Path) -> Path:
    """A model of `models.MODELS` with a tokenizer, a chat template and a picture processor."""
    tokenizer = tiny_tokenizer(template=TEMPLATE)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(each, special=True) for each in SPECIAL]}
    )
    torch.manual_seed(5)
    model = models.MODELS[name]()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    image = tokenizer.convert_tokens_to_ids("<image>")
    for key in ("image_token_index", "image_token_id"):
        if hasattr(model.config, key):
            setattr(model.config, key, image)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(EOS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor_of(name).save_pretrained(folder)
    return folder


def processor_of(name: str) -> Any:
    """Pixels as the tower of a model wants them."""
    if name in ("idefics3", "smolvlm"):
        kind = hf.Idefics3ImageProcessorPil if name == "idefics3" else hf.SmolVLMImageProcessorPil
        return kind(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    square = {"height": 24, "width": 24}
    if name == "llava":
        return hf.CLIPImageProcessorPil(size=square, do_center_crop=False)
    grid = [[24, 48], [48, 24]]
    if name == "llava_onevision":
        return hf.LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=grid)
    return hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 24}, crop_size=square, image_grid_pinpoints=grid
    )


def pixels(seed: int, height: int = 20, width: int = 24) -> NDArray[np.uint8]:
    """A picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
