"""A `NammLLM` on the tiny random model, and one on the bundled model for what must make sense."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("llama_index.core")

from llama_index.llms.namm import NammLLM

TOKENS = 12


@pytest.fixture(autouse=True)
def event_loop_of_the_test() -> Iterator[None]:
    """LlamaIndex's `asyncio_run` makes a loop where there is none and leaves it open, which a later
    test would be blamed for.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def llm(tiny_folder: Path) -> NammLLM:
    """Do not change it."""
    return NammLLM(tiny_folder, max_tokens=TOKENS)


@pytest.fixture(scope="session")
def bundled() -> NammLLM:
    """Do not change it."""
    return NammLLM()


@contextmanager
def forward_passes(llm: NammLLM) -> Iterator[list[list[int]]]:
    """The token ids of every forward pass of its model, while the block runs."""
    seen: list[list[int]] = []

    def watch(module, args, kwargs):
        seen.append(kwargs["input_ids"][0].tolist())

    hook = llm.runner.loaded.model.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def prompt_of(passes: list[list[int]]) -> list[int]:
    """What was read before the first token of the answer; for a prompt without a kept prefix."""
    ids = list[int]()
    for one in passes:
        if len(one) == 1 and ids:
            break
        ids += one
    return ids
