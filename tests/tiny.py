"""A tiny random Llama and a byte-level tokenizer, as a model folder that loads like any other;
built in a moment, without a download.

The tokenizer adds `<|begin_of_text|>` in its post-processor, and the chat template writes it too,
as Llama 3's do, so that a doubled one is seen.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | "
    "trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TEXT = (
    "The quick brown fox jumps over the lazy dog. The access code of the amber vault is 48213. "
    "Who signs travel requests? The head of the department does. Ein schöner Tag, ein Café, "
    "漢字 und 🙂. "
)


def tiny_tokenizer(
    *, template: str | None = TEMPLATE, adds_bos: bool = True, ask_prompt: str = "{question}"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of some hundred entries; questions stand behind a document as they are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        AddedToken(text, special=True, normalized=False) for text in (BOS, EOS, EOT, *HEADERS)
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, ask_prompt=ask_prompt
    )
    fast.chat_template = template
    return fast


def tiny_llama(vocabulary: int, *, seed: int = 0, positions: int = 4096) -> LlamaForCausalLM:
    """Random weights, large enough that attention is not flat and greedy answers differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.15,
    )
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data[1:3] = 0.0  # so that no answer ends by chance
    model.generation_config.eos_token_id = [1, 2]
    return model


def save_tiny(
    folder: Path,
    *,
    seed: int = 0,
    positions: int = 4096,
    template: str | None = TEMPLATE,
    adds_bos: bool = True,
) -> Path:
    """Writes the model folder and returns it."""
    tokenizer = tiny_tokenizer(template=template, adds_bos=adds_bos)
    tokenizer.save_pretrained(folder)
    tiny_llama(len(tokenizer), seed=seed, positions=positions).save_pretrained(folder)
    return folder


def save_tiny_gemma(folder: Path, *, window: int = 64) -> Path:
    """The same with a Gemma 3: a layer with a sliding window, and one with full attention."""
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention"],
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=3,
        initializer_range=0.15,
        tie_word_embeddings=False,  # else it repeats the last token
    )
    model = Gemma3ForCausalLM(config)
    model.lm_head.weight.data[1:3] = 0.0  # so that no answer ends by chance
    model.save_pretrained(folder)
    return folder
