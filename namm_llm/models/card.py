"""`ModelCard`: what a model's files say of themselves, read without loading the weights."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from namm_llm.errors import ModelError
from namm_llm.models.gguf.file import is_gguf, open_gguf
from namm_llm.models.locate import NAMM_FILE

_HERE = Path(__file__).parent
# a NAMM serves every quantisation and every fine-tuned form of a model; sizes are all that each of
# these shows in its header, and no other model that we know has just these
_SHIPPED: dict[tuple[str | int | None, ...], str] = {
    ("llama", 30, 9, 3, 64, 49152, 8192): "smollm2-135m"
}
_LICENCE = re.compile(r"^license: *(\S.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is in a model; None where its files do not say."""

    path: Path
    """The GGUF file or the folder."""
    architecture: str
    """As the file names it: llama, qwen2 ..."""
    quantization: str
    """Such as Q4_K_M; empty if the weights are not quantised."""
    nbytes: int
    """Of the weights on disk."""
    positions: int | None
    """Trained ones."""
    layers: int | None
    heads: int | None
    """Of queries."""
    kv_heads: int | None
    """Of keys and values."""
    head_dim: int | None
    vocabulary: int | None
    """Tokens that it knows."""
    has_chat_template: bool
    """Without one it goes on with a text and knows no chat."""
    licence: str
    """As its files name it; empty if they do not."""
    namm: Path | None = None
    """The NAMM that was made for it: beside its weights, or shipped with this package."""

    @property
    def sizes(self) -> tuple[str | int | None, ...]:
        """What tells models apart, whatever their weights' format."""
        heads = (self.heads, self.kv_heads, self.head_dim)
        return (self.architecture, self.layers, *heads, self.vocabulary, self.positions)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        paths = {"path": str(self.path), "namm": None if self.namm is None else str(self.namm)}
        return {**asdict(self), **paths}


def read_card(place: Path) -> ModelCard:
    """The card of a GGUF file or a model folder. ModelError if it is damaged."""
    card = _of_file(place) if is_gguf(place) else _of_folder(place)
    beside = place / NAMM_FILE
    shipped = _SHIPPED.get(card.sizes)
    if beside.is_file():
        return replace(card, namm=beside)
    return card if shipped is None else replace(card, namm=_HERE / shipped / NAMM_FILE)


def _of_file(place: Path) -> ModelCard:
    file = open_gguf(place)
    metadata = file.metadata
    architecture = metadata.text("general.architecture")

    def number(key: str) -> int | None:
        name = f"{architecture}.{key}"
        return metadata.integer(name) if isinstance(metadata.get(name), int) else None

    heads, width = number("attention.head_count"), number("embedding_length")
    quantised = {info.type_name for info in file.tensors.values()} - {"F32", "F16", "BF16"}
    return ModelCard(
        path=file.path,
        architecture=architecture,
        quantization=file.quantization if quantised else "",
        nbytes=sum(header.path.stat().st_size for header in file.headers),
        positions=number("context_length"),
        layers=number("block_count"),
        heads=heads,
        kv_heads=number("attention.head_count_kv") or heads,
        head_dim=number("attention.key_length") or (width // heads if width and heads else None),
        vocabulary=len(metadata.texts("tokenizer.ggml.tokens")) or None,
        has_chat_template="tokenizer.chat_template" in metadata,
        licence=metadata.text("general.license", ""),
    )


def _of_folder(folder: Path) -> ModelCard:
    described = _json(folder / "config.json")
    config = {**described, **described.get("text_config", {})}
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    files = [path for path in folder.glob("*.safetensors") if path.name != NAMM_FILE]
    files = files or list(folder.glob("pytorch_model*.bin"))
    quantised = config.get("quantization_config") or {}
    return ModelCard(
        path=folder,
        architecture=str(described.get("model_type", "not stated")),
        quantization=str(quantised.get("quant_method", "")),
        nbytes=sum(path.stat().st_size for path in files),
        positions=config.get("max_position_embeddings"),
        layers=config.get("num_hidden_layers"),
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        head_dim=config.get("head_dim") or (width // heads if width and heads else None),
        vocabulary=config.get("vocab_size"),
        has_chat_template=_has_template(folder),
        licence=_licence(folder),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object.")
    return value


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(_json(settings).get("chat_template"))


def _licence(folder: Path) -> str:
    readme = folder / "README.md"
    found = _LICENCE.search(readme.read_text(encoding="utf-8")) if readme.is_file() else None
    return found[1] if found else ""
