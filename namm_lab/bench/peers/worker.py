"""Runs one peer in its own environment: jobs as JSON lines on stdin, one JSON line each as the
answer on stdout. `python worker.py llama.cpp`, `openvino` or `transformers`.

    {"do": "load", "model": FILE, "threads": 2, "positions": 8192, "kept": null}
        versions and settings
    {"do": "read", "ids": [...], "decoded": 64}
        seconds up to the first token, bytes of the cache, peak memory of this process so far
    {"do": "decode", "tokens": 64}
        seconds, behind what was read last
    {"do": "answer", "ids": [...], "tokens": 16}
        the same, and the ids of a greedy answer

Nothing of this project is imported: another environment has only the peer's packages.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import deque
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

Found = dict[str, Any]


class LlamaCpp:
    """llama.cpp through llama-cpp-python, with flash attention and 16-bit keys and values."""

    def load(self, model: str, threads: int, positions: int, kept: int | None) -> Found:
        """The cache has a place for each of `positions` tokens."""
        import llama_cpp
        from numpy.ctypeslib import as_array

        self._api, self._array = llama_cpp, as_array
        self._model = llama_cpp.Llama(
            model,
            n_ctx=positions,
            n_threads=threads,
            n_threads_batch=threads,
            n_batch=512,
            n_ubatch=512,
            flash_attn=True,
            verbose=False,
        )
        self._read_tokens = 0
        return {"peer": f"llama-cpp-python {version('llama-cpp-python')}"}

    def read(self, ids: list[int], decoded: int) -> Found:
        """seconds, nbytes, kept. decoded: unused, for the cache can be cut back."""
        self._model.reset()
        start = time.perf_counter()
        self._model.eval(ids)
        self._token = self._best()
        seconds = time.perf_counter() - start
        self._read_tokens = len(ids)
        nbytes = self._api.llama_state_seq_get_size(self._model.ctx, 0)
        return {"seconds": seconds, "nbytes": nbytes, "kept": len(ids)}

    def decode(self, tokens: int) -> Found:
        """seconds; the cache is cut back first."""
        self._model.n_tokens = self._read_tokens  # what stands behind is overwritten by eval
        start = time.perf_counter()
        self._write(self._token, tokens)
        return {"seconds": time.perf_counter() - start}

    def answer(self, ids: list[int], tokens: int) -> Found:
        """ids, and what `read` finds."""
        found = self.read(ids, 0)
        return {**found, "ids": [self._token, *self._write(self._token, tokens - 1)]}

    def _write(self, token: int, tokens: int) -> list[int]:
        found = []
        for _ in range(tokens):
            self._model.eval([token])
            token = self._best()
            found.append(token)
        return found

    def _best(self) -> int:
        logits = self._api.llama_get_logits_ith(self._model.ctx, -1)
        return int(self._array(logits, (self._model.n_vocab(),)).argmax())


class OpenVino:
    """OpenVINO GenAI, which opens a GGUF file itself; `kept`: with its own cache eviction."""

    def load(self, model: str, threads: int, positions: int, kept: int | None) -> Found:
        """kept: tokens that its eviction leaves, 32 first and 128 newest among them."""
        import numpy
        import openvino
        import openvino_genai

        self._array, self._tensor, self._api = numpy.array, openvino.Tensor, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # each round has to read
        if kept is not None:
            scheduler.use_cache_eviction = True
            scheduler.cache_eviction_config = openvino_genai.CacheEvictionConfig(
                start_size=32,
                recent_size=128,
                max_cache_size=kept,
                aggregation_mode=openvino_genai.AggregationMode.NORM_SUM,
            )
        self._kept = kept
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads}
        )
        self._decode_seconds: deque[float] = deque()
        self._last: list[int] = []
        return {"peer": f"openvino-genai {version('openvino-genai')}"}

    def read(self, ids: list[int], decoded: int) -> Found:
        """seconds, nbytes, kept, ids. It decodes at once, because a second call would read again;
        `decode` tells those seconds.
        """
        times, found = self._generate(ids, decoded + 1)
        if len(ids) != len(self._last):
            self._decode_seconds.clear()  # of another text
        self._last = ids
        if decoded:
            self._decode_seconds.append(times[-1] - times[1])
        nbytes = self._pipeline.get_metrics().kv_cache_size_in_bytes
        kept = min(len(ids), self._kept or len(ids))
        return {"seconds": times[1] - times[0], "ids": found, "nbytes": nbytes, "kept": kept}

    def decode(self, tokens: int) -> Found:
        """seconds: of a round that `read` did and that was not told yet, or of a new one."""
        if not self._decode_seconds:
            self.read(self._last, tokens)
        return {"seconds": self._decode_seconds.popleft()}

    def answer(self, ids: list[int], tokens: int) -> Found:
        """ids, and what `read` finds."""
        return self.read(ids, tokens - 1)

    def _generate(self, ids: list[int], tokens: int) -> tuple[list[float], list[int]]:
        """When it began and when each token came, and the tokens."""
        config = self._api.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.ignore_eos = tokens, False, True
        clock = _Clock()
        given = self._tensor(self._array([ids], dtype="int64"))
        streamer = _streamer(self._api, clock)
        clock.begin()
        (result,) = self._pipeline.generate([given], [config], streamer)
        return clock.times, list(result.m_generation_ids[0])


class _Clock:
    """Reads the time at the beginning and at each token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begin(self) -> None:
        self.times = [time.perf_counter()]

    def tick(self, tokens: int) -> None:
        self.times += [time.perf_counter()] * tokens


def _streamer(api: Any, clock: _Clock) -> Any:
    """A streamer that is told ids, not text: text comes late where a word has several tokens."""

    class Streamer(api.StreamerBase):  # type: ignore[misc]
        def write(self, token: int | list[int]) -> Any:
            clock.tick(1 if isinstance(token, int) else len(token))
            return api.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    return Streamer()


class Transformers:
    """transformers' full cache and SDPA attention, on the weights expanded to floats."""

    chunk = 512

    def load(self, model: str, threads: int, positions: int, kept: int | None) -> Found:
        """model: a folder."""
        import torch
        import transformers

        self._torch: Any = torch
        self._new_cache: Any = transformers.DynamicCache
        library: Any = transformers
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._model: Any = library.AutoModelForCausalLM.from_pretrained(
            model, dtype="auto", attn_implementation="sdpa"
        ).eval()
        dtype = str(self._model.dtype).removeprefix("torch.")
        return {"peer": f"transformers {transformers.__version__}, {dtype}"}

    def read(self, ids: list[int], decoded: int) -> Found:
        """seconds, nbytes, kept. It reads in chunks, which bounds memory."""
        start = time.perf_counter()
        cache, given = self._new_cache(config=self._model.config), self._torch.tensor([ids])
        for piece in given.split(self.chunk, dim=1):
            token = self._step(cache, piece)
        seconds = time.perf_counter() - start
        self._last = cache, token
        held = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        nbytes = sum(part.untyped_storage().nbytes() for part in held)
        return {"seconds": seconds, "nbytes": nbytes, "kept": len(ids)}

    def decode(self, tokens: int) -> Found:
        """seconds, with a copy of the cache."""
        cache, token = deepcopy(self._last)
        start = time.perf_counter()
        self._write(cache, token, tokens)
        return {"seconds": time.perf_counter() - start}

    def answer(self, ids: list[int], tokens: int) -> Found:
        """ids, and what `read` finds."""
        found = self.read(ids, 0)
        first = int(self._last[1])
        return {**found, "ids": [first, *self._write(*self._last, tokens - 1)]}

    def _write(self, cache: Any, token: Any, tokens: int) -> list[int]:
        found = []
        for _ in range(tokens):
            token = self._step(cache, token)
            found.append(int(token))
        return found

    def _step(self, cache: Any, ids: Any) -> Any:
        with self._torch.inference_mode():
            out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return out.logits[:, -1].argmax(-1, keepdim=True)


SIDES: dict[str, type[Any]] = {
    "llama.cpp": LlamaCpp,
    "openvino": OpenVino,
    "transformers": Transformers,
}


def peak_nbytes() -> int | None:
    """The most memory that this process has had, loading included."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    side = SIDES[sys.argv[1]]()
    for line in sys.stdin:
        job = json.loads(line)
        told = getattr(side, job.pop("do"))(**job)
        print(json.dumps({**told, "peak_nbytes": peak_nbytes()}), file=answers, flush=True)
