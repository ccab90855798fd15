"""What a model can do, for LangChain's middleware: from its config.json, without loading it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from namm_integrations.memories import file_of, is_document

from namm_llm import DocumentError, read_header


def profile(
    model: str, max_tokens: int | None, context_window: int | None, memory: Any
) -> dict[str, Any]:
    """A `ModelProfile`. Without max_input_tokens for a Hugging Face id, which nothing is downloaded
    for. A memory takes its tokens from the window.
    """
    known: dict[str, Any] = {
        "name": model,
        "open_weights": True,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": "vision_config" in _config(model),
        "audio_inputs": False,
        "video_inputs": False,
        "tool_calling": True,
        "tool_choice": True,
        "tool_call_streaming": False,
        "structured_output": True,
        "temperature": True,
    }
    limits = [each for each in (_positions(model), context_window) if each]
    if limits:
        left = max(min(limits) - _read_tokens(memory), 0)
        known["max_input_tokens"] = left
        known["max_output_tokens"] = min(max_tokens or left, left)
    return known


def _config(model: str) -> dict[str, Any]:
    """The model's config.json; empty if it is not here."""
    bundled = files("namm_llm") / "models" / model / "config.json"
    path = Path(model).expanduser() / "config.json"
    source = path if path.is_file() else bundled
    try:
        return dict(json.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _positions(model: str) -> int | None:
    config = _config(model)
    positions = config.get("text_config", config).get("max_position_embeddings")
    return positions if isinstance(positions, int) else None


def _read_tokens(memory: Any) -> int:
    if memory is None:
        return 0
    if is_document(memory):
        return int(memory.info()["seen_tokens"])
    try:
        return read_header(file_of(memory)).seen_tokens
    except DocumentError:  # said with the first question
        return 0
