"""The server's numbers, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from namm_llm.engine.results import Generation

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "namm_requests", "HTTP requests.", ("path", "status"), registry=registry
        )
        self._seconds = Histogram(
            "namm_request_seconds",
            "Seconds from a request to the end of its response.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._first = Histogram(
            "namm_first_token_seconds",
            "Seconds from a request to the first token of its answer.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._prompt = Counter("namm_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._cached = Counter(
            "namm_cached_tokens", "Tokens of prompts that were not read again.", registry=registry
        )
        self._written = Counter("namm_completion_tokens", "Tokens written.", registry=registry)
        self._running = Gauge(
            "namm_answers_in_flight", "Answers that wait or are written.", registry=registry
        )
        self._kept = Histogram(
            "namm_kept_fraction",
            "Share of the tokens read that caches still hold.",
            registry=registry,
            buckets=(0.05, 0.1, 0.125, 0.25, 0.5, 0.75, 1),
        )
        self._known: frozenset[str] = frozenset()

    def know(self, paths: frozenset[str]) -> None:
        """The paths that are counted by name; all others are one."""
        self._known = paths

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._requests.labels(path if path in self._known else "other", str(status)).inc()
        self._seconds.observe(seconds)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While an answer waits or is written."""
        with self._running.track_inprogress():
            yield

    def count(self, generation: Generation) -> None:
        """Count a whole answer."""
        usage = generation.usage
        self._prompt.inc(usage.input_tokens)
        self._cached.inc(usage.cached_tokens)
        self._written.inc(usage.output_tokens)
        self._first.observe(generation.timings.first_token_seconds)
        self._kept.observe(generation.cache.kept_fraction)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
