"""Gemma 3 beyond its window of 512 tokens: 15 of its 18 layers slide."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch

from namm_llm import Runner
from namm_llm.cache import ManagedCache
from namm_llm.engine.forward import feed

pytestmark = pytest.mark.real
TEXT = topics["string-methods"]
LENGTH, NEW = 1100, 24  # tokens read, beyond two windows, and decoded
CHUNKS = (200, 511, 513, LENGTH)


@pytest.fixture(scope="module")
def folder(gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from namm_llm.models.gguf import convert_gguf

    return convert_gguf(gemma, tmp_path_factory.mktemp("twin") / "gemma3")


@pytest.fixture(scope="module")
def exact(folder: Path) -> Runner:
    """Weights in float32, the full cache."""
    return Runner.load(folder, device="cpu", dtype="float32", policy="full", prefix_caches=0)


@pytest.fixture(scope="module")
def twin(folder: Path) -> Any:
    """transformers' own model of that folder, with transformers' own cache."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def ids(exact: Runner) -> list[int]:
    return exact.encode(TEXT)[:LENGTH]


@pytest.fixture(scope="module")
def wanted(twin: Any, ids: list[int]) -> Any:
    """transformers' answer: `sequences` and the `logits` of each new token."""
    return twin.generate(
        torch.tensor([ids]),
        max_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )


@pytest.mark.parametrize("chunk", CHUNKS)
def test_gemma_equals_transformers_beyond_its_window(
    exact: Runner, ids: list[int], wanted: Any, chunk: int
) -> None:
    """Chunks end before, at and behind the edge; what follows is decoded token by token."""
    model, cache = exact.loaded.model, ManagedCache.for_model(exact.loaded.model)
    prompt, answer = torch.tensor([ids]), wanted.sequences[:, LENGTH:]
    *_, last = feed(model, cache, prompt, chunk=chunk, last_only=True)
    steps = feed(model, cache, answer[:, :-1], chunk=1)
    found = torch.cat([last, *steps], 1)[0]
    torch.testing.assert_close(found, torch.cat(wanted.logits), atol=1e-3, rtol=1e-4)
    assert found.argmax(-1).tolist() == answer[0].tolist()


def test_prompts_below_at_and_beyond_the_window_are_a_batch(
    exact: Runner, ids: list[int], wanted: Any
) -> None:
    prompts = [ids[:100], ids[:505], ids[:700], ids]
    alone = [exact.generate(prompt, max_tokens=NEW, stop_loops=False) for prompt in prompts]
    found = exact.generate_batch(prompts, max_tokens=NEW, stop_loops=False)
    assert [answer.text for answer in found] == [answer.text for answer in alone]
    assert found[-1].text == exact.decode(wanted.sequences[0, LENGTH:].tolist())


def test_gemma_documents_are_saved_opened_extended_and_asked_together(
    exact: Runner, tmp_path: Path
) -> None:
    texts = [TEXT[:1200], TEXT[:2600]]
    documents = [exact.read(text) for text in texts]
    assert documents[0].info()["seen_tokens"] < 512 < documents[1].info()["seen_tokens"]
    question = "Which method removes spaces?"
    alone = [document.ask(question, max_tokens=NEW).text for document in documents]
    together = exact.ask_each(documents, question, max_tokens=NEW)
    assert [answer.text for answer in together] == alone
    documents[1].save(tmp_path / "document.namm")
    again, more = exact.open(tmp_path / "document.namm"), TEXT[2600:3200]
    assert again.ask(question, max_tokens=NEW).text == alone[1]
    grown, other = (document.extend(more) for document in (documents[1], again))
    answer = grown.ask(question, max_tokens=NEW).text
    assert other.ask(question, max_tokens=NEW).text == answer
    assert exact.read(texts[1] + more).ask(question, max_tokens=NEW).text == answer


def test_gemma_packed_predicts_what_expanded_weights_do_beyond_the_window(
    gemma: Path, ids: list[int], twin: Any
) -> None:
    packed = Runner.load(gemma, device="cpu", policy="full").loaded.model
    with torch.no_grad():
        found, expanded = (
            model(torch.tensor([ids]), logits_to_keep=300).logits[0].float().log_softmax(-1)
            for model in (packed, twin)
        )
    agreement = (found.argmax(-1) == expanded.argmax(-1)).double().mean().item()
    divergence = (expanded.exp() * (expanded - found)).sum(-1).mean().item()
    print(f"agreement {agreement:.4f}, KL {divergence:.5f} over 300 tokens")
    assert agreement >= 0.95
    assert divergence <= 0.005
