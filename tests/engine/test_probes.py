"""Probes through a runner: texts become tokens, a memory remembers them, answers and bytes are
those of the cache.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_llm.errors import PolicyError
from namm_llm.namm import Memory, Namm, Probes, Recency, Spectrogram
from namm_llm.runner import Runner
from tests.tiny import TEXT


def asking(*texts: str) -> Namm:
    zeros = Namm.zeros(
        0,
        spectrogram=Spectrogram(lowest=0),
        recency=Recency(0),
        memory=Memory(probed=True),
        probes=Probes(texts),
    )
    return replace(zeros, theta=torch.tensor([1.0, 0.0]))


@pytest.fixture
def runner(tiny_folder) -> Runner:
    return Runner.load(
        tiny_folder, policy="namm", namm=asking("What is it about?"), budget=30, interval=64
    )


def kept(memory) -> list[list[int]]:
    return [layer.sequences[0].retained.positions.tolist() for layer in memory.cache.managed]


def test_its_own_texts_or_yours(runner, tiny_folder):
    own, yours = (runner.encode(text) for text in ("What is it about?", "Who?"))
    assert runner.eviction.policy.probe_ids == (tuple(own),)
    other = Runner.load(
        tiny_folder,
        policy="namm",
        namm=asking("What is it about?"),
        budget=30,
        interval=64,
        probes=["Who?"],
    )
    assert other.eviction.policy.probe_ids == (tuple(yours),)
    assert kept(runner.read(TEXT * 2)) != kept(other.read(TEXT * 2))


def test_how_a_document_is_cut_does_not_matter(runner, tiny_folder):
    small = Runner.load(
        tiny_folder,
        policy="namm",
        namm=asking("What is it about?"),
        budget=30,
        interval=64,
        chunk=7,
    )
    assert kept(runner.read(TEXT * 2)) == kept(small.read(TEXT * 2))


def test_a_saved_memory_goes_on_with_its_probes(runner, tiny_folder, tmp_path):
    memory = runner.read(TEXT * 2)
    memory.save(tmp_path / "a.namm")
    opened = Runner.load(tiny_folder).open(tmp_path / "a.namm")
    assert kept(opened) == kept(memory)
    assert opened.cache.eviction == memory.cache.eviction
    assert kept(opened.extend(TEXT)) == kept(memory.extend(TEXT))
    assert opened.ask("Who?", max_tokens=80).text == memory.ask("Who?", max_tokens=80).text


def test_a_batch_answers_as_its_rows_alone(runner):
    prompts = [TEXT, TEXT[50:] + TEXT]
    assert [g.text for g in runner.generate_batch(prompts, max_tokens=70)] == [
        runner.generate(p, max_tokens=70).text for p in prompts
    ]


def test_fixed_shapes_ask_the_same_probes(runner, tiny_folder):
    """Updates while the answer is written: there, too, the probes run through the model."""
    settings = {"policy": "namm", "namm": asking("What is it about?"), "budget": 30, "interval": 64}
    fixed = Runner.load(tiny_folder, **settings, cuda_graphs="eager")
    assert fixed.decoding == "fixed shapes"
    found, expected = (one.generate(TEXT * 2, max_tokens=140) for one in (fixed, runner))
    assert (found.text, found.cache.updates) == (expected.text, expected.cache.updates)
    assert found.cache.stored_tokens == expected.cache.stored_tokens


def test_errors(tiny_folder):
    with pytest.raises(PolicyError, match="policy keydiff takes no probes"):
        Runner.load(tiny_folder, policy="keydiff", budget=30, probes=["Who?"])
    with pytest.raises(PolicyError, match="was not made for probes"):
        Runner.load(tiny_folder, policy="namm", namm=Namm.zeros(), probes=["Who?"])
    with pytest.raises(PolicyError, match="a probe without tokens"):
        Runner.load(tiny_folder, policy="namm", namm=asking("?"), probes=[""])
