"""Lists without numbers: what an example says beside the next token, and what it trains."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

import namm_llm
from namm_lab.tiny.batches import NO_HINT, collate, text_batch
from namm_lab.tiny.data import load_data
from namm_lab.tiny.documents import World, reading
from namm_lab.tiny.example import NOWHERE, Example
from namm_lab.tiny.hints import Hints, look
from namm_lab.tiny.lists import listing
from tests.architectures import random_llama

FOLDER = Path(namm_llm.__file__).parent / "models" / "namm-tiny"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load_data(None, tmp_path_factory.mktemp("work"), 40, FOLDER).world("test")


@pytest.fixture
def model(world: World) -> LlamaForCausalLM:
    model = random_llama(layers=3)
    model.resize_token_embeddings(world.encode.core.get_vocab_size())
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("seed", range(20))
def test_the_next_name_of_a_list_is_where_its_hint_says(world: World, seed: int):
    rng = random.Random(seed)
    example = listing(rng, world, rng.choice((192, 512)), spacing=24)
    assert example.sources
    for asking, source in example.sources.items():
        if source == NOWHERE:
            assert example.ids[asking + 1] == world.encode.end
            continue
        assert source in dict(example.sites)
        said = next(head for head in example.heads if head > asking)
        assert example.ids[said] == example.ids[source]


@pytest.mark.parametrize("seed", range(20))
def test_a_list_asks_for_the_record_whose_name_before_it_just_said(world: World, seed: int):
    example = listing(random.Random(seed), world, 512, spacing=24)
    for asking, source in example.sources.items():
        assert source == NOWHERE or names(example, source) == names(example, asking)
    firsts = [first for first, _ in example.sites if example.before[first] == (NOWHERE, NOWHERE)]
    assert 1 <= len(firsts) <= 3  # one for each kind


def names(example: Example, asking: int) -> list[int]:
    """The tokens of the name before."""
    first, last = example.before[asking]
    return example.ids[first : last + 1]


def test_batches_keep_the_hints_of_their_examples(world: World):
    rng = random.Random(3)
    examples = [
        listing(rng, world, 192, spacing=20),
        reading(rng, world, 256, spacing=24, questions=3),
    ]
    batch = collate(rng, examples, world.encode.pad, 4096)
    for row, example in enumerate(examples):
        told = (batch.before[row, :, 0] >= 0).nonzero().flatten().tolist()
        assert told == sorted(example.before)
        assert [tuple(batch.before[row, i].tolist()) for i in told] == [
            example.before[i] for i in told
        ]
    assert (batch.sources[1] < 0).all()


def test_hints_teach_the_layers_below_and_nothing_where_there_are_none(
    world: World, model: LlamaForCausalLM
):
    hints = Hints(model)
    batch = collate(
        random.Random(0),
        [listing(random.Random(0), world, 192, spacing=20)],
        world.encode.pad,
        4096,
    )
    hints.loss(model, batch, model.model(batch.ids, output_hidden_states=True)).backward()
    learned = [bool(layer.self_attn.q_proj.weight.grad is not None) for layer in model.model.layers]
    assert learned == [True, True, False]
    text = text_batch([world.prose.window(random.Random(0), 64)], world.encode.bos)
    with torch.no_grad():
        assert hints.loss(model, text, model.model(text.ids, output_hidden_states=True)).item() == 0


@torch.no_grad()
def test_where_a_head_looks_is_what_the_whole_attention_matrix_says(
    world: World, model: LlamaForCausalLM
):
    rng, hints = random.Random(1), Hints(model)
    examples = [
        listing(rng, world, 192, spacing=20),
        reading(rng, world, 256, 24, 3),
        listing(rng, world, 256, spacing=20),
    ]
    batch = collate(rng, examples, world.encode.pad, 4096)
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": torch.ones_like(batch.ids),
        "position_ids": batch.positions,
    }
    output = model.model(**inputs, output_hidden_states=True, output_attentions=True)
    for at, wanted in ((hints.looking, batch.sources), (hints.fetching, batch.before[..., 1])):
        for row in range(3):
            asking = (wanted[row] != NO_HINT).nonzero().flatten()
            whole = -output.attentions[at.layer][row, at.head, asking, wanted[row, asking]].log()
            torch.testing.assert_close(look(model, batch, output, at, wanted, row), whole)
    assert (batch.sources[1] == NO_HINT).all()
