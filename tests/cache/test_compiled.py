"""A long text compiles nothing new: oneDNN keeps a kernel for every size that it meets, which is
memory that grows with the text.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from namm_lab.train.families import DEFAULT, FAMILIES
from namm_llm.attention.observation import _replay_dtype
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from tests.architectures import random_ids, random_llama

INTERVAL, WARM, STEPS = 32, 10, 40
MARK = "warm"


def read() -> None:
    """Heads whose lengths change at every eviction step."""
    family, generator = FAMILIES[DEFAULT], torch.Generator().manual_seed(0)
    namm = replace(family, theta=torch.randn(len(family.theta), generator=generator))
    llama = random_llama(layers=2)
    cache = ManagedCache.for_model(
        llama,
        make_cache_config("namm", namm=namm, budget=64, budget_scope="model", interval=INTERVAL),
    )
    for number, piece in enumerate(torch.split(random_ids(1, INTERVAL * STEPS, 0), INTERVAL, 1)):
        if number == WARM:
            print(MARK, flush=True)
        with torch.inference_mode():
            llama(piece, past_key_values=cache, logits_to_keep=1)
    kept = [tuple(heads) for layer in cache.kept_tokens() for heads in layer]
    assert len({count for heads in kept for count in heads}) > 1, "no test if all heads are alike"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.skipif(
    _replay_dtype(torch.device("cpu")) == torch.float32,
    reason="without bfloat16 in the CPU nothing here is oneDNN's",
)
def test_no_kernel_is_compiled_once_the_cache_is_full():
    said = subprocess.run(
        [sys.executable, "-c", "from tests.cache.test_compiled import read; read()"],
        env={**os.environ, "ONEDNN_VERBOSE": "2"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, _, after = said.partition(f"{MARK}\n")
    assert "onednn_verbose" in before, "oneDNN says nothing, so this shows nothing"
    assert [line for line in after.splitlines() if "cache_miss" in line] == []
