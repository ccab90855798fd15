"""A runner with a queue of replies, in the place of `Settings.load`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from namm_llm.config import CacheConfig, SamplingParams, make_cache_config
from namm_llm.errors import NammError

CONTRACT = {
    "text": "Yes.",
    "finish_reason": "stop",
    "usage": {"input_tokens": 1203, "cached_tokens": 1150, "output_tokens": 142},
    "timings": {
        "load_seconds": 0.5,
        "prefill_seconds": 0.3,
        "first_token_seconds": 0.41,
        "decode_seconds": 7.76,
    },
    "cache": {
        "seen_tokens": 2048,
        "stored_tokens": 512,
        "kept_fraction": 0.25,
        "nbytes": 34_100_000,
        "full_nbytes": 136_400_000,
        "eviction_steps": 4,
        "policy": "h2o",
    },
    "model": "fake",
    "looped": False,
}


@dataclass(frozen=True)
class Piece:
    text: str


class Record:
    """Attributes of a dictionary."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


@dataclass
class FakeResult:
    text: str
    finish_reason: str

    def __getattr__(self, name: str) -> Any:
        value = CONTRACT[name]
        return Record(value) if isinstance(value, dict) else value

    def to_dict(self) -> dict[str, Any]:
        return {**CONTRACT, "text": self.text, "finish_reason": self.finish_reason}


class FakeStream:
    """Says its reply word by word until it is cancelled; `between` runs before each word."""

    def __init__(self, reply: str, cancel: Event, between: Callable[[], None]) -> None:
        self._reply, self._cancel, self._between = reply, cancel, between

    def __iter__(self) -> Iterator[Piece]:
        said, words = "", self._reply.split(" ")
        for i, word in enumerate(words):
            self._between()
            if self._cancel.is_set():
                break
            said += f"{' ' if i else ''}{word}"
            yield Piece(f"{' ' if i else ''}{word}")
        self.result = FakeResult(said, "cancelled" if self._cancel.is_set() else "stop")


@dataclass
class FakeRunner:
    """Remembers what it was asked: prompts, messages, texts read, memories opened."""

    replies: list[str | NammError]
    between: Callable[[], None] = lambda: None
    asked: list[Any] = field(default_factory=list)
    read_texts: list[str] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    fingerprint: str = "fake"
    config: CacheConfig = field(default_factory=make_cache_config)
    context_window: int | None = 4096
    model_id: str = "fake"
    loaded: Any = field(
        default_factory=lambda: Record(
            {
                "quantization": None,
                "model": Record({"dtype": "torch.float32"}),
                "footprint_bytes": 34_100_000,
            }
        )
    )

    def render_chat(self, messages: Any) -> str:
        return ""

    def read_ahead(
        self, messages: Any, *, cancel: Event, on_progress: Callable[[int, int], None]
    ) -> FakeResult:
        on_progress(1, 2)
        self.between()
        self.read_texts.append(messages[-1]["content"])
        return FakeResult("", "cancelled" if cancel.is_set() else "length")

    def remember(self, messages: Any) -> None:
        return None

    def stream(
        self,
        prompt: Any,
        params: SamplingParams,
        *,
        cancel: Event,
        on_progress: Callable[[int, int], None],
    ) -> FakeStream:
        self.asked.append(list(prompt) if isinstance(prompt, list) else prompt)
        self.params.append(params)
        reply = self.replies.pop(0)
        if isinstance(reply, NammError):
            raise reply
        return FakeStream(reply, cancel, self.between)

    def read(self, text: str, *, on_progress: Callable[[int, int], None]) -> FakeDocument:
        on_progress(1, 2)
        self.read_texts.append(text)
        return FakeDocument(self)

    def open(self, path: str) -> FakeDocument:
        self.read_texts.append(f"memory {path}")
        return FakeDocument(self)


@dataclass
class FakeCache:
    config: CacheConfig


@dataclass
class FakeDocument:
    runner: FakeRunner

    @property
    def cache(self) -> FakeCache:
        return FakeCache(self.runner.config)

    def stream(self, question: str, params: SamplingParams, *, cancel: Event) -> FakeStream:
        return self.runner.stream(
            question, params, cancel=cancel, on_progress=lambda done, total: None
        )

    def save(self, path: Path, *, extra: Mapping[str, str] | None = None) -> None:
        Path(path).write_text("memory")

    def info(self) -> dict[str, Any]:
        return {"model": "fake", "seen_tokens": 1203}
