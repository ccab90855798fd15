"""What a model can do, for LangChain's middleware: known from its config.json, without loading it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any


def profile(model: str, max_tokens: int | None) -> dict[str, Any]:
    """A `ModelProfile`. Without max_input_tokens for a Hugging Face id, which nothing is downloaded
    for.
    """
    known: dict[str, Any] = {
        "name": model,
        "open_weights": True,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": False,
        "audio_inputs": False,
        "video_inputs": False,
        "tool_calling": True,
        "tool_choice": True,
        "tool_call_streaming": False,
        "structured_output": True,
        "temperature": True,
    }
    if positions := _positions(model):
        known["max_input_tokens"] = positions
        known["max_output_tokens"] = min(max_tokens or positions, positions)
    return known


def _positions(model: str) -> int | None:
    bundled = files("namm_llm") / "models" / model / "config.json"
    path = Path(model).expanduser() / "config.json"
    try:
        config = json.loads(
            path.read_text(encoding="utf-8")
            if path.is_file()
            else bundled.read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return None
    return config.get("text_config", config).get("max_position_embeddings")  # type: ignore[no-any-return]
