"""The tiny LLaVA: its shape, its tokenizer, and the folder that it is saved as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from namm_lab.film.pictures import NAMES, SIZE

PATCH = 8
TOKENS = (SIZE // PATCH) ** 2
"""Of one frame."""
POSITIONS = 4096
WORDS = ["<pad>", "<s>", "</s>", "<image>", "<unk>"]
WORDS += [*map(str, range(10)), *NAMES]
PAD, BOS, END, IMAGE = range(4)
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}"
    "{{ '</s>' if message['role'] == 'assistant' else '' }}{% endfor %}"
)
"""Pictures and words as they stand: the answer follows the colour at once."""
MEAN, DEVIATION = 0.5, 0.25  # of colours from 0 to 1


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token; a question is a colour and nothing else."""
    core = Tokenizer(WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        ask_prompt="{question}",
        chat_template=TEMPLATE,
    )
    return made


def make_processor() -> CLIPImageProcessorPil:
    """Pixels as the model was trained on them."""
    return CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[MEAN] * 3,
        image_std=[DEVIATION] * 3,
    )


def build_model(seed: int = 0) -> LlavaForConditionalGeneration:
    """Random weights: 0.27 million parameters."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=BOS,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-1
    )
    return LlavaForConditionalGeneration(config)


def save(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Weights, tokenizer and how pictures become numbers: what `Runner.load` takes."""
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = END, PAD
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    make_processor().save_pretrained(folder)
