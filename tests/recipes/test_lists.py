"""Lists without numbers: what an example says beside the next token, and what training makes of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

import namm_llm
from recipes.namm_tiny.batches import collate, text_batch
from recipes.namm_tiny.data import load_data
from recipes.namm_tiny.documents import World, reading
from recipes.namm_tiny.hints import Hints
from recipes.namm_tiny.lists import NOWHERE, listing
from tests.models import random_llama

FOLDER = Path(namm_llm.__file__).parent / "models" / "namm-tiny"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load_data(None, tmp_path_factory.mktemp("work"), 40, FOLDER).world("test")


@pytest.mark.parametrize("seed", range(20))
def test_the_next_name_of_a_list_is_where_its_hint_says(world: World, seed: int):
    rng = random.Random(seed)
    example = listing(rng, world, rng.choice((192, 512)), spacing=24)
    assert example.sources
    for asking, source in example.sources.items():
        if source == NOWHERE:
            assert example.ids[asking + 1] == world.encode.end
            continue
        assert source in example.sites
        said = next(head for head in example.heads if head > asking)
        assert example.ids[said] == example.ids[source]


@pytest.mark.parametrize("seed", range(20))
def test_a_list_asks_for_the_record_whose_name_before_it_just_said(world: World, seed: int):
    example = listing(random.Random(seed), world, 512, spacing=24)
    for asking, source in example.sources.items():
        assert source == NOWHERE or example.before[source] == example.before[asking]
    firsts = [site for site in example.sites if example.before[site] == world.encode.end]
    assert 1 <= len(firsts) <= 3  # one for each kind


def test_batches_keep_the_hints_of_their_examples(world: World):
    rng = random.Random(3)
    examples = [listing(rng, world, 192, spacing=20), reading(rng, world, 256, spacing=24, questions=3)]
    batch = collate(rng, examples, world.encode.pad, 4096)
    for row, example in enumerate(examples):
        told = (batch.before[row] >= 0).nonzero().flatten().tolist()
        assert told == sorted(example.before)
        assert [int(batch.before[row, i]) for i in told] == [example.before[i] for i in told]
    assert (batch.sources[1] < 0).all()


def test_hints_teach_the_layers_below_and_nothing_where_there_are_none(world: World):
    rng, model = random.Random(0), random_llama(layers=3)
    model.resize_token_embeddings(world.encode.core.get_vocab_size())
    model.set_attn_implementation("eager")
    hints = Hints(model)
    batch = collate(rng, [listing(rng, world, 192, spacing=20)], world.encode.pad, 4096)
    assert hints.look(batch)
    hints.loss(model, batch, model.model(batch.ids, output_hidden_states=True, output_attentions=True)).backward()
    learned = [bool(layer.self_attn.q_proj.weight.grad is not None) for layer in model.model.layers]
    assert learned == [True, True, False]
    text = text_batch([world.prose.window(rng, 64)], world.encode.bos)
    assert not hints.look(text)
    with torch.no_grad():
        assert hints.loss(model, text, model.model(text.ids, output_hidden_states=True)).item() == 0
