"""Training examples that list all records of a kind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import namm_llm
from recipes.namm_tiny.batches import collate
from recipes.namm_tiny.data import load_data
from recipes.namm_tiny.documents import World
from recipes.namm_tiny.lists import listing

FOLDER = Path(namm_llm.__file__).parent / "models" / "namm-tiny"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load_data(None, tmp_path_factory.mktemp("work"), 40, FOLDER).world("test")


@pytest.mark.parametrize("seed", range(20))
def test_a_list_says_the_records_of_its_document_in_their_order(world: World, seed: int):
    rng = random.Random(seed)
    example = listing(rng, world, rng.choice((192, 512)), spacing=24)
    decoded = world.encode.core.decode(example.ids, skip_special_tokens=False)
    document, *turns = decoded.split("<|assistant|>\n")
    stated = document.lower().replace(" for the ", " of the ").replace(" for ", " of ")
    for turn in turns:
        lines = turn.partition("<|end|>")[0].split("\n")
        places = [stated.index(line.removeprefix("The ").lower().replace(" for ", " of ")) for line in lines]
        assert len(lines) >= 2
        assert places == sorted(places)


def test_what_decides_a_list_is_learned(world: World):
    batch = collate(random.Random(0), [listing(random.Random(0), world, 192, spacing=20)], world.encode.pad, 4096)
    assert (batch.loss[batch.heads] == 2.0).all()
    ends = batch.ids[0] == world.encode.end
    assert batch.loss[0, ends].max() == 1.0
    assert 0 < (batch.loss > 0).float().mean() < 0.6
