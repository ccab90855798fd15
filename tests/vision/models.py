"""Seven vision models, tiny and random, built in memory, each with a picture and a text to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor

VOCABULARY, IMAGE = 120, 100
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _llama(**more: Any) -> hf.LlamaConfig:
    return hf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        **_ENDS,
        **more,
    )


def _qwen2(**more: Any) -> hf.Qwen2Config:
    return hf.Qwen2Config(**{**_llama().to_dict(), "model_type": "qwen2", **more})


def _clip(size: int = 24) -> hf.CLIPVisionConfig:
    return hf.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        patch_size=8,
    )


def _siglip(size: int = 24) -> hf.SiglipVisionConfig:
    return hf.SiglipVisionConfig(**_clip(size).to_dict() | {"model_type": "siglip_vision_model"})


def _llava() -> Any:
    return hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(vision_config=_clip(), text_config=_llama(), image_token_index=IMAGE)
    )


def _llava_next() -> Any:
    config = hf.LlavaNextConfig(
        vision_config=_clip(),
        text_config=_llama(),
        image_token_index=IMAGE,
        image_grid_pinpoints=[[24, 48], [48, 24]],
    )
    return hf.LlavaNextForConditionalGeneration(config)


def _llava_next_video() -> Any:
    config = hf.LlavaNextVideoConfig(
        vision_config=_clip(),
        text_config=_llama(),
        image_token_index=IMAGE,
        video_token_index=IMAGE + 1,
        image_grid_pinpoints=[[24, 48], [48, 24]],
    )
    return hf.LlavaNextVideoForConditionalGeneration(config)


def _llava_onevision() -> Any:
    config = hf.LlavaOnevisionConfig(
        vision_config=_siglip(),
        text_config=_qwen2(),
        image_token_index=IMAGE,
        video_token_index=IMAGE + 1,
        image_grid_pinpoints=[[24, 48], [48, 24]],
        vision_aspect_ratio="anyres_max_9",
    )
    return hf.LlavaOnevisionForConditionalGeneration(config)


def _idefics3() -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = hf.Idefics3Config(
        vision_config=vision, text_config=_llama(), image_token_id=IMAGE, scale_factor=2
    )
    return hf.Idefics3ForConditionalGeneration(config)


def _smolvlm() -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = hf.SmolVLMConfig(
        vision_config=vision, text_config=_llama(), image_token_id=IMAGE, scale_factor=2
    )
    return hf.SmolVLMForConditionalGeneration(config)


def _qwen2_vl() -> Any:
    text = {**_llama().to_dict(), "model_type": "qwen2_vl_text"}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [1, 1, 2],
    }
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 8}
    config = hf.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=IMAGE + 1,
        vision_start_token_id=IMAGE + 2,
        vision_end_token_id=IMAGE + 3,
    )
    return hf.Qwen2VLForConditionalGeneration(config)


MODELS: dict[str, Callable[[], Any]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_next_video": _llava_next_video,
    "llava_onevision": _llava_onevision,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "qwen2_vl": _qwen2_vl,
}


@dataclass(frozen=True)
class Seen:
    """A model with what it is given."""

    model: Any
    ids: Tensor
    """`[1, T]`: text, a picture, text."""
    pixels: dict[str, Tensor]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """As `generate` takes them."""
        more = {}
        if self.model.config.model_type == "qwen2_vl":
            more["mm_token_type_ids"] = (self.ids == IMAGE).int()
        return {"input_ids": self.ids, **self.pixels, **more}

    def embeds(self) -> Tensor:
        """`[1, T, D]`: the text's embeddings, with the picture's rows in their places."""
        found = self.model.get_image_features(**self.pixels)
        parts = found.pooler_output
        parts = list(parts) if isinstance(parts, (list, tuple)) else [parts]
        rows = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
        embeds = self.model.get_input_embeddings()(self.ids).clone()
        embeds[self.ids == IMAGE] = rows
        return embeds


@cache
def seen(name: str) -> Seen:
    """A model by its name, with a picture of its own."""
    torch.manual_seed(7)
    model = MODELS[name]().eval()
    if name == "llava":
        pixels = {"pixel_values": torch.randn(4, 3, 24, 24)}
    elif name.startswith("llava"):
        pixels = {"pixel_values": torch.randn(1, 3, 3, 24, 24)}
        pixels["image_sizes"] = torch.tensor([[24, 48]])
    elif name == "qwen2_vl":
        pixels = {"pixel_values": torch.randn(64, 3 * 2 * 8 * 8)}
        pixels["image_grid_thw"] = torch.tensor([[1, 8, 8]])
    else:
        pixels = {"pixel_values": torch.randn(1, 5, 3, 32, 32)}
    with torch.no_grad():
        parts = model.get_image_features(**pixels).pooler_output
    parts = list(parts) if isinstance(parts, (list, tuple)) else [parts]
    count = sum(part.reshape(-1, part.shape[-1]).shape[0] for part in parts)
    before, after = torch.randint(3, 90, (9,)).tolist(), torch.randint(3, 90, (31,)).tolist()
    image = [IMAGE] * count
    if name == "qwen2_vl":
        image = [IMAGE + 2, *image, IMAGE + 3]
    return Seen(model, torch.tensor([[*before, *image, *after]]), pixels)
