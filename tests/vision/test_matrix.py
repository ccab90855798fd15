"""The managed cache under seven vision models that know nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from namm_llm.attention.rope import rotation_of
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies import POLICIES
from tests.vision.models import MODELS, Seen, seen

NEW = 8
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> Seen:
    return seen(request.param)


def cache_of(case: Seen, policy: str | None = None, **settings: Any) -> ManagedCache:
    if policy == "namm":
        settings["namm"] = Namm.zeros()
    return ManagedCache.for_model(case.model, policy, **settings)


def answer(case: Seen, cache: ManagedCache | None = None, **more: Any) -> tuple[Tensor, Tensor]:
    """Ids and logits `[NEW, V]` of a greedy answer."""
    given = {} if cache is None else {"past_key_values": cache}
    found = case.model.generate(
        **case.inputs, **GREEDY, **given, **more, output_logits=True, return_dict_in_generate=True
    )
    return found.sequences[0, -NEW:], torch.cat(found.logits)


def test_the_full_cache_is_transformers_own(case: Seen) -> None:
    ids, logits = answer(case)
    own_ids, own_logits = answer(case, cache_of(case))
    assert torch.equal(own_ids, ids)
    torch.testing.assert_close(own_logits, logits, atol=1e-5, rtol=1e-5)
    again, _ = answer(case)  # the model is as it was
    assert torch.equal(again, ids)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "full"])
def test_every_policy_evicts(case: Seen, policy: str) -> None:
    if policy == "kvzip":
        with pytest.raises(PolicyError, match="use Runner"):
            cache_of(case, policy, budget=0.25)
        return
    cache = cache_of(case, policy, budget=0.25, interval=16)
    answer(case, cache)
    stats = cache.stats()
    assert stats.eviction_steps
    assert stats.stored_tokens < 0.6 * stats.seen_tokens
    assert stats.seen_tokens == case.ids.shape[1] + NEW - 1


@torch.no_grad()
def read(case: Seen, cache: ManagedCache, sizes: list[int]) -> Tensor:
    """Logits `[T, V]` of text and picture, which were read in pieces of these sizes."""
    model, embeds, positions = case.model, case.embeds(), None
    if model.config.model_type == "qwen2_vl":
        grid, kinds = case.pixels["image_grid_thw"], case.inputs["mm_token_type_ids"]
        positions, _ = model.model.get_rope_index(case.ids, kinds, image_grid_thw=grid)
    found, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        more = {} if positions is None else {"position_ids": positions[..., part]}
        found.append(model(inputs_embeds=embeds[:, part], past_key_values=cache, **more).logits[0])
        start += size
    assert start == case.ids.shape[1]
    return torch.cat(found)


def test_a_picture_can_be_read_in_pieces(case: Seen) -> None:
    length = case.ids.shape[1]
    whole = read(case, cache_of(case), [length])
    pieces = read(case, cache_of(case), [17, 5, 11, length - 33])  # borders within the picture
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("policy", ["full", "replay", "novelty"])
def test_saved_and_opened_in_the_middle_of_a_picture(case: Seen, policy: str) -> None:
    """The rest reads as if the cache had stayed."""
    config = make_cache_config(policy, budget=None if policy == "full" else 12, interval=16)
    length, at = case.ids.shape[1], 21

    def reading(*, saved: bool) -> Tensor:
        cache = ManagedCache.for_population(case.model, [config])
        embeds, positions = case.embeds(), torch.arange(length)[None]
        if case.model.config.model_type == "qwen2_vl":
            positions = positions.expand(3, 1, -1)
        with torch.no_grad():
            case.model(
                inputs_embeds=embeds[:, :at],
                position_ids=positions[..., :at],
                past_key_values=cache,
            )
            if saved:
                tensors, numbers = cache.state()
                cache = ManagedCache.from_state(tensors, numbers, model=case.model, config=config)
            found = case.model(
                inputs_embeds=embeds[:, at:],
                position_ids=positions[..., at:],
                past_key_values=cache,
            )
        return found.logits

    torch.testing.assert_close(reading(saved=True), reading(saved=False), atol=1e-6, rtol=1e-5)


def test_query_replay_turns_as_the_decoder_does_and_not_as_the_tower(case: Seen) -> None:
    frequencies = torch.tensor(rotation_of(case.model).frequencies)
    expected = 10_000 ** -(torch.arange(0, 8, 2) / 8)  # heads of 8 numbers in every decoder
    torch.testing.assert_close(frequencies, expected.float(), atol=1e-6, rtol=1e-5)
