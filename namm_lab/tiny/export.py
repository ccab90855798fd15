"""The finished model as a folder that transformers loads by itself, with its model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from namm_lab.tiny.tokenizer import BOS, END, EOS, PAD


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes bf16 weights, configuration and tokenizer beside the old folder, then swaps."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = generation_config(tokenizer)
    copy.to(torch.bfloat16).save_pretrained(new)
    tokenizer.save_pretrained(new)
    for file in new.iterdir():
        file.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    bos, end, eos, pad = tokenizer.convert_tokens_to_ids([BOS, END, EOS, PAD])
    return GenerationConfig(
        bos_token_id=bos, eos_token_id=[end, eos], pad_token_id=pad, do_sample=False
    )


def write_card(folder: Path, scores: dict[str, Any], training: dict[str, Any]) -> None:
    template = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    lookups = "\n".join(_row(score) for score in scores["lookups"])
    lists = "\n".join(_row(score) for score in scores["lists"])
    units = ("nats_per_token", "nats_per_byte", "bits_per_byte")
    perplexity = "\n".join(
        f"| {name} | " + " | ".join(f"{loss[unit]:.3f}" for unit in units) + " |"
        for name, loss in scores["perplexity"].items()
    )
    text = template.format(lookups=lookups, lists=lists, perplexity=perplexity, **training)
    (folder / "README.md").write_text(text, encoding="utf-8")
    measured = json.dumps({**scores, "training": training}, indent=1)
    (folder / "scores.json").write_text(measured + "\n", encoding="utf-8")


def _row(score: dict[str, Any]) -> str:
    return "| {length} | {name} | {exact:.3f} | {right} of {asked} |".format(**score)
