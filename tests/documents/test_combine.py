"""Documents that were read separately, as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from namm_llm import CacheError, Document, Runner, UsageError
from tests.cache.test_eviction import policy_of
from tests.tiny import TEXT, save_tiny

TEXTS = [TEXT, TEXT[40:200] + "Otto Brandt is the captain. ", "The festival is in Larkmoor. " * 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("combine") / "tiny", positions=512)


def test_keys_are_those_of_texts_that_stand_behind_each_other(folder: Path) -> None:
    runner = Runner.load(folder)
    documents = [runner.read(text) for text in TEXTS]
    cache = runner.combine(documents).cache
    head = runner.session.format.head_tokens
    place, model = 0, runner.loaded.model
    for number, text in enumerate(TEXTS):
        ids, left = runner.session.format.document(text), head if number else 0
        own = DynamicCache()
        at = torch.arange(len(ids))[None] + place - left
        with torch.no_grad():
            model(torch.tensor([ids]), position_ids=at, past_key_values=own)
        stop = place + len(ids) - left
        for layer, kept in zip(own.layers, cache.managed, strict=True):
            for group, tokens in enumerate(kept.sequences[0].retained.heads()):
                found = tokens.keys[place:stop]
                torch.testing.assert_close(found, layer.keys[0, group, left:], atol=2e-3, rtol=1e-3)
                assert tokens.positions[place:stop].tolist() == list(range(place, stop))
        place = stop
    assert cache.seen_tokens() == [place]


def test_one_document_alone_answers_as_before(folder: Path) -> None:
    runner = Runner.load(folder)
    document = runner.read(TEXTS[0])
    assert runner.combine([document]).ask("Who?").text == document.ask("Who?").text


@pytest.mark.parametrize("policy", ["h2o", "snapkv", "replay", "namm"])
@pytest.mark.parametrize("kv_bits", [None, 8])
def test_joined_documents_are_asked_saved_and_extended(
    folder: Path, tmp_path: Path, policy: str, kv_bits: int | None
) -> None:
    settings = {"policy": policy_of(policy), "interval": 32, "kv_bits": kv_bits}
    runner = Runner.load(folder, budget=40, **settings)
    documents = [runner.read(text) for text in TEXTS]
    whole = runner.combine(documents, "\n\n")
    answer = whole.ask("Who is the captain?", max_tokens=100)
    assert answer.usage.output_tokens == 100
    assert answer.cache.stored_tokens <= 3 * 40 + 64 + 32
    whole.save(tmp_path / "whole.namm")
    opened = Runner.load(folder).open(tmp_path / "whole.namm")
    assert opened.ask("Who is the captain?", max_tokens=100).text == answer.text
    more = whole.extend(TEXT * 10)  # past the trained positions
    assert more.ask("Who?", max_tokens=5).text


def test_the_documents_themselves_stay_as_they_are(folder: Path) -> None:
    runner = Runner.load(folder, policy="h2o", budget=40, interval=32)
    documents = [runner.read(text) for text in TEXTS]
    before = [document.ask("Who?").text for document in documents]
    first, second = runner.combine(documents), runner.combine(documents[::-1])
    assert first.fingerprint != second.fingerprint
    assert [document.ask("Who?").text for document in documents] == before


def test_many_documents_become_compact_past_the_trained_positions(folder: Path) -> None:
    runner = Runner.load(folder, policy="h2o", budget=40, interval=64)
    documents = [runner.read(TEXT * 3) for _ in range(6)]
    cache = runner.combine(documents).cache
    assert cache.seen_tokens()[0] > 512
    assert cache.next_positions() == [512 - 64]


def test_what_cannot_be_joined_says_so(folder: Path) -> None:
    runner = Runner.load(folder)
    document = runner.read(TEXT)
    with pytest.raises(UsageError, match="no document to combine"):
        runner.combine([])
    with pytest.raises(UsageError, match="2 documents have 1 places between them, and there are 2"):
        runner.combine([document, document], ["", ""])
    other: Document = runner.with_cache("h2o", budget=40).read(TEXT)
    with pytest.raises(CacheError, match="read with other settings"):
        runner.combine([document, other])
