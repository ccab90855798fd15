"""Runs in kvpress' own environment: jobs as JSON lines on stdin, one JSON line each as the answer
on stdout.

    {"do": "load", "folder": ..., "dtype": ..., "device": ...}
    {"do": "read", "press": ..., "keep": 0.25, "batch": 1, "length": 8000}
        seconds, bytes of the cache, peak memory
    {"do": "decode", "press": ..., "tokens": 64}
        seconds, from a copy of what was read last

kvpress evicts once, when the whole prompt has been read in one forward call: `keep` of its tokens
stay in each KV head.
"""

from __future__ import annotations

import json
import re
import sys
import time
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kvpress
import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

PRESSES = {"knorm": "KnormPress", "snapkv": "SnapKVPress", "expected": "ExpectedAttentionPress"}


class Worker:
    """Holds the model and what was read last under each press."""

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        return getattr(self, f"_{job.pop('do')}")(**job)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _load(self, folder: str, dtype: str, device: str) -> dict[str, Any]:
        self._model = (
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
            )
            .to(device)
            .eval()
        )
        self._device = device
        self._last: dict[str, tuple[Any, Any, int]] = {}
        return {
            "kvpress": version("kvpress"),
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
        }

    @torch.inference_mode()
    def _read(self, press: str, keep: float, batch: int, length: int) -> dict[str, Any]:
        ids = torch.randint(
            0,
            self._model.config.vocab_size,
            (batch, length),
            generator=torch.Generator().manual_seed(1),
        ).to(self._device)
        chosen = getattr(kvpress, PRESSES[press])(compression_ratio=1 - keep)
        self._last.pop(press, None)
        before = self._start_peak()
        cache = DynamicCache(config=self._model.config)
        self._wait()
        start = time.perf_counter()
        with chosen(self._model):
            logits = self._model(
                ids, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits
        token = logits[:, -1:].argmax(-1)
        self._wait()
        seconds = time.perf_counter() - start
        self._last[press] = (cache, token, length)
        return {
            "seconds": seconds,
            "peak_nbytes": self._peak(),
            "before_nbytes": before,
            **_numbers(cache, length),
        }

    @torch.inference_mode()
    def _decode(self, press: str, tokens: int) -> dict[str, Any]:
        cache, token, length = self._last[press]
        cache = deepcopy(cache)
        self._wait()
        start = time.perf_counter()
        for step in range(tokens):
            # the cache is shorter than what was read, so positions have to be given
            at = torch.full_like(token, length + step)
            token = self._model(
                token, past_key_values=cache, use_cache=True, position_ids=at
            ).logits.argmax(-1)
        self._wait()
        return {"seconds": time.perf_counter() - start}

    def _wait(self) -> None:
        if self._device != "cpu":
            torch.cuda.synchronize()

    def _start_peak(self) -> int | None:
        if self._device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            return int(torch.cuda.memory_allocated())
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")  # VmHWM begins anew
        return _status("VmRSS")

    def _peak(self) -> int | None:
        return int(torch.cuda.max_memory_allocated()) if self._device != "cpu" else _status("VmHWM")


def _numbers(cache: DynamicCache, length: int) -> dict[str, Any]:
    held = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    kept = held[0].shape[2] / length
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    full = sum(t.shape[0] * t.shape[1] * length * t.shape[3] * t.element_size() for t in held)
    return {"kept_fraction": kept, "nbytes": sum(storages.values()), "full_nbytes": full}


def _status(field: str) -> int | None:
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    transformers.utils.logging.set_verbosity_error()
    worker = Worker()
    for line in sys.stdin:
        print(json.dumps(worker.do(json.loads(line))), file=answers, flush=True)
