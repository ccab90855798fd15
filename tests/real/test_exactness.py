"""The packed file against its expanded twin, and the engine against transformers."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch

from namm_llm import Runner

pytestmark = pytest.mark.real
TOKENS = 500


def test_the_full_cache_equals_transformers_token_for_token(twin_folder: Path, twin: Any) -> None:
    runner = Runner.load(twin_folder, device="cpu", dtype="float32", policy="full")
    for question in ("Who wrote the play Hamlet?", "How does one boil an egg?"):
        chat = [{"role": "user", "content": question}]
        prompt = torch.tensor([runner.encode(runner.render_chat(chat))])
        wanted = twin.generate(prompt, max_new_tokens=60, do_sample=False)[0, prompt.shape[1] :]
        stream = runner.stream(chat, max_tokens=60, stop_loops=False)
        found = [token for piece in stream for token in piece.token_ids]
        ends = runner.loaded.end_ids
        assert found == [token for token in wanted.tolist() if token not in ends]


def test_packed_weights_predict_what_expanded_ones_do(runner: Runner, twin: Any) -> None:
    ids = torch.tensor([runner.encode(topics["string-methods"])[:TOKENS]])
    with torch.no_grad():
        packed = runner.loaded.model(ids).logits[0].float().log_softmax(-1)
        expanded = twin(ids).logits[0].log_softmax(-1)
    agreement = (packed.argmax(-1) == expanded.argmax(-1)).double().mean().item()
    divergence = (expanded.exp() * (expanded - packed)).sum(-1).mean().item()
    print(f"agreement {agreement:.4f}, KL {divergence:.5f} over {TOKENS} tokens")
    assert agreement >= 0.95
    assert divergence <= 0.005
