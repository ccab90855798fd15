"""Lists in the recipe: every record once, in any order."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from namm_llm.tasks.records import Record
from namm_llm.tasks.words import Name
from recipes.namm_tiny.batches import collate
from recipes.namm_tiny.documents import Example, any_of, list_answer
from recipes.namm_tiny.tokenizer import Encoder, train_tokenizer, wrap
from recipes.namm_tiny.trainer import allow, batch_loss
from tests.models import random_llama

NAMES = (Name(("amber", "vault"), False), Name(("amber", "door"), False), Name(("Green", "Hill"), True))
RECORDS = [Record("door code", name, str(value)) for name, value in zip(NAMES, (481, 5920, 77), strict=True)]


@pytest.fixture(scope="module")
def encode() -> Encoder:
    text = "The door code of the amber vault is 481. The door code of Green Hill is 77. the amber door"
    return Encoder(wrap(train_tokenizer([text] * 20, 400), 1000))


def test_the_answer_is_one_restated_record_a_line(encode: Encoder) -> None:
    answer = list_answer(encode, RECORDS)
    assert answer.ids == [*encode("\n".join(record.answer for record in RECORDS)), encode.end]
    assert [encode.core.decode([answer.ids[place]]).strip()[:1] for place in answer.heads] == ["a", "a", "G"]


def test_each_name_that_is_not_said_yet_would_be_right(encode: Encoder) -> None:
    also = list_answer(encode, RECORDS).also
    ids = list_answer(encode, RECORDS).ids
    assert all(ids[place] != token for place, token in also)
    last = max(place for place, token in enumerate(ids) if token == encode("\n")[0])
    assert also
    assert max(place for place, _ in also) < last  # the last record is the only one left


def test_others_count_while_they_begin_alike() -> None:
    assert any_of([1, 2, 3], [[1, 5, 3], [1, 2, 3], [9, 2, 7]]).also == [(0, 9), (1, 5)]


def test_the_loss_is_that_of_all_right_tokens_together() -> None:
    model = random_llama()
    example = Example()
    example.add([3, 4, 5])
    example.heads.append(3)
    example.also += [(3, 7), (3, 8)]
    example.add([6], 1.0)
    example.add([9], 0.5)
    batch = collate(random.Random(0), [example, example], pad=0, reach=16)
    wanted = batch.loss[:, 1:] > 0
    logits = torch.randn(int(wanted.sum()), 20)
    targets, weights = batch.ids[:, 1:][wanted], batch.loss[:, 1:][wanted]
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    losses, hits = allow(batch, wanted, logits, plain, logits.argmax(-1) == targets)
    chances = logits.softmax(-1)
    expected = torch.stack([-(chances[i, [6, 7, 8]].sum().log() if i % 2 == 0 else chances[i, 9].log()) for i in range(4)])
    torch.testing.assert_close(losses, expected)
    assert hits[::2].tolist() == [best in (6, 7, 8) for best in logits.argmax(-1)[::2].tolist()]
    loss, _ = batch_loss(model, batch)
    without, _ = batch_loss(model, dataclasses.replace(batch, also=batch.also[:0]))
    assert loss < without
    assert weights.tolist() == [1.0, 0.5] * 2
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
