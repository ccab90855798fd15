"""A model with sliding windows through the engine: batches, documents, forks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from namm_llm.errors import ModelError
from namm_llm.runner import Runner
from tests.documents.vaults import random_namm
from tests.tiny import save_tiny_gemma

WINDOW = 64
LENGTHS = (20, 100, 300)  # below the window, beyond it, and beyond several
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"policy": "full"},
    "replay": {"policy": "replay", "budget": 0.5},
    "namm": {"policy": "namm"},
    "namm, half": {"policy": "namm", "budget": 0.5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_gemma(tmp_path_factory.mktemp("sliding") / "tiny-gemma", window=WINDOW)


@pytest.fixture(scope="module", params=SETTINGS)
def runner(request: pytest.FixtureRequest, folder: Path) -> Runner:
    settings = dict(SETTINGS[request.param])
    if settings["policy"] == "namm":
        settings["namm"] = random_namm()
    return Runner.load(folder, **settings, interval=32, chunk=48, prefix_caches=0)


def texts() -> list[str]:
    return ["fox " * 3 + f"The vault {n} is amber. " * n for n in (1, 9, 30)]


def test_prompts_of_any_lengths_are_answered_together_as_alone(runner: Runner) -> None:
    prompts = texts()
    assert len(runner.encode(prompts[0])) < WINDOW < len(runner.encode(prompts[1]))
    alone = [runner.generate(prompt, max_tokens=35).text for prompt in prompts]
    assert len(set(alone)) == 3
    found = runner.generate_batch(prompts, max_tokens=35)
    assert [answer.text for answer in found] == alone


def test_each_document_is_asked_as_alone(runner: Runner) -> None:
    documents = [runner.read(text) for text in texts()]
    question = "Who signs travel requests?"
    alone = [document.ask(question, max_tokens=35).text for document in documents]
    found = runner.ask_each(documents, question, max_tokens=35)
    assert [answer.text for answer in found] == alone
    several = documents[1].ask_many([question, "fox?"], max_tokens=35)
    assert [answer.text for answer in several] == [
        alone[1],
        documents[1].ask("fox?", max_tokens=35).text,
    ]


def test_callers_at_the_same_time_share_a_batch(runner: Runner) -> None:
    prompts, found = texts(), dict[int, str]()
    alone = [runner.generate(prompt, max_tokens=30).text for prompt in prompts]

    def call(number: int) -> None:
        found[number] = runner.generate(prompts[number], max_tokens=30).text

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(3)] == alone


@pytest.mark.parametrize("number", range(3))
def test_a_document_is_saved_opened_and_extended(
    runner: Runner, tmp_path: Path, number: int
) -> None:
    document = runner.read(texts()[number])
    document.save(tmp_path / "document.namm")
    again = runner.open(tmp_path / "document.namm")
    more = "A schöner Tag. The fox jumps over the lazy dog. " * 5
    for one, other in ((document, again), (document.extend(more), again.extend(more))):
        assert other.ask("fox?", max_tokens=40).text == one.ask("fox?", max_tokens=40).text


@pytest.mark.parametrize("chunk", [1, 63, 64, 65, 1000])
def test_the_full_cache_equals_transformers(folder: Path, chunk: int) -> None:
    runner = Runner.load(folder, chunk=chunk, prefix_caches=0)
    ids = [0, *runner.encode(texts()[2])][:201]
    expected = runner.loaded.model.generate(
        torch.tensor([ids]), max_new_tokens=40, do_sample=False, pad_token_id=3
    )
    found = runner.generate(ids, max_tokens=40).text
    assert found == runner.decode(expected[0, len(ids) :].tolist()).rstrip("\ufffd")


def test_cuda_graphs_are_refused(folder: Path) -> None:
    with pytest.raises(
        ModelError,
        match="cannot be decoded with cuda_graphs='eager': it has layers with a sliding window",
    ):
        Runner.load(folder, cuda_graphs="eager")
