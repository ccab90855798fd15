"""Compact positions: attention is that of a dense cache whose keys were rotated to them."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from namm_llm.attention.rope import Rotation
from namm_llm.cache import ManagedCache
from namm_llm.cache.positions import CompactPositions, compact_positions
from namm_llm.config import make_cache_config
from namm_llm.engine.forward import feed
from namm_llm.errors import CacheError, ModelError, PolicyError
from namm_llm.tokens import HeadTokens, RaggedTokens
from tests import rotated
from tests.architectures import VOCABULARY, random_ids
from tests.cache.test_eviction import policy_of

TRAINED = 160
KINDS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 40,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": TRAINED,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def model_of(config_class=LlamaConfig, kind: str = "default", **sizes):
    torch.manual_seed(3)
    # frequencies of 4 ** -i, so that a float32 angle is exact wherever the kind leaves them
    rope = {"rope_theta": 65_536.0, **KINDS[kind]}
    config = config_class(**{**SIZES, "rope_parameters": rope, **sizes})
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def llama():
    return model_of()


def assert_is_the_definition(model, config, ids, *, atol=1e-4, whole=False) -> ManagedCache:
    """Read past the trained positions, then token by token; `whole`: without asking the cache for
    the positions, as foreign code does.
    """
    cache = ManagedCache.for_model(model, config)
    got, before = [], []
    calls = [*ids[:, :-3].split(config.interval // 2, 1), *ids[:, -3:].split(1, 1)]
    for call in calls:
        before.append(rotated.state_of(cache))
        if whole:
            got.append(model(call, past_key_values=cache).logits)
        else:
            got += list(feed(model, cache, call))
    with rotated.rotated_attention(model) as reference:
        for call, logits, (stored, windows) in zip(calls, got, before, strict=True):
            rotated.stored.update(stored)
            rotated.windows.update(windows)
            expected = model(call, past_key_values=reference).logits
            torch.testing.assert_close(logits, expected, atol=atol, rtol=1e-4)
    return cache


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn"])
@pytest.mark.parametrize("whole", [False, True])
def test_attention_is_that_of_keys_rotated_to_compact_positions(kind, whole):
    config = make_cache_config("h2o", budget=24, interval=40, positions="compact")
    cache = assert_is_the_definition(model_of(kind=kind), config, random_ids(2, 423), whole=whole)
    assert all(sequence.window_start == 120 for sequence in cache.managed[0].sequences)


@pytest.mark.parametrize("config_class", [Qwen2Config, Qwen3Config, GemmaConfig])
def test_other_architectures(config_class):
    config = make_cache_config("snapkv", budget=24, interval=40, positions="compact")
    assert_is_the_definition(model_of(config_class), config, random_ids(1, 323))


@pytest.mark.parametrize("policy", ["replay", "namm", "keydiff", "streaming_llm"])
@pytest.mark.parametrize("budget_scope", ["head", "layer", "model"])
def test_ragged_heads(llama, policy, budget_scope):
    config = make_cache_config(
        policy_of(policy), budget=24, interval=40, positions="compact", budget_scope=budget_scope
    )
    assert_is_the_definition(llama, config, random_ids(1, 323))


def test_sliding_windows_go_on_counting():
    rope = {"rope_theta": 10_000.0, "rope_type": "default"}
    config = Gemma3TextConfig(
        **SIZES,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        query_pre_attn_scalar=16,
        rope_parameters={"full_attention": rope, "sliding_attention": {**rope, "rope_theta": 99.0}},
    )
    torch.manual_seed(3)
    model = Gemma3ForCausalLM(config).eval()
    settings = make_cache_config("h2o", budget=24, interval=40, positions="compact")
    assert_is_the_definition(model, settings, random_ids(1, 423))


def test_a_budget_in_tokens_turns_compact_where_the_trained_positions_end(llama):
    config = make_cache_config("h2o", budget=24, interval=40)
    cache = assert_is_the_definition(llama, config, random_ids(1, 423))
    assert cache.managed[0].sequences[0].window_start == 120
    short = ManagedCache.for_model(llama, config)
    list(feed(llama, short, random_ids(1, TRAINED - 1)))
    assert short.managed[0].sequences[0].window_start is None


def test_within_the_trained_positions_nothing_changes(llama):
    ids = random_ids(1, TRAINED)
    logits = []
    for positions in (None, "original"):
        config = make_cache_config("h2o", budget=24, interval=40, positions=positions)
        cache = ManagedCache.for_model(llama, config)
        logits.append(torch.cat(list(feed(llama, cache, ids)), 1))
    assert torch.equal(*logits)


def test_8_bit_keys_are_rotated_from_their_first_rounding(llama):
    """Off by at most twice what 8 bits cost without rotation: keys are rounded twice, not more."""

    def last_logits(length: int, positions: str, bits: int | None) -> torch.Tensor:
        settings = {"interval": 40, "positions": positions, "kv_bits": bits}
        # newest tokens only, so that rounding does not choose others
        cache = ManagedCache.for_model(llama, "streaming_llm", budget=24, **settings)
        logits = torch.cat(list(feed(llama, cache, random_ids(1, length))), 1)
        retained = cache.managed[0].sequences[0].retained
        assert retained.unrotated is None or retained.unrotated.dtype == torch.int8
        return logits[:, -120:]

    def error(length: int, positions: str) -> float:
        exact, rounded = (last_logits(length, positions, bits) for bits in (None, 8))
        return float((exact - rounded).square().mean().sqrt())

    assert 0 < error(1_000, "compact") < 2 * error(160, "original")


def test_no_position_past_the_trained_ones(llama):
    seen: list[int] = []
    hook = llama.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(int(given["position_ids"].max())), with_kwargs=True
    )
    cache = ManagedCache.for_model(llama, "h2o", budget=0.5, interval=40, positions="compact")
    for _ in feed(llama, cache, random_ids(1, 1_000), chunk=64):
        assert all(head <= TRAINED for layer in cache.kept_tokens() for head in layer[0])
    hook.remove()
    assert max(seen) == TRAINED - 1


def test_generate_gives_the_tokens_of_our_own_loop(llama):
    ids, settings = random_ids(2, 300), {"budget": 24, "interval": 40, "positions": "compact"}
    theirs = llama.generate(
        ids,
        max_new_tokens=90,
        do_sample=False,
        past_key_values=ManagedCache.for_model(llama, "h2o", **settings),
    )
    cache, ours = ManagedCache.for_model(llama, "h2o", **settings), ids
    logits = list(feed(llama, cache, ids))[-1]
    for _ in range(90):
        ours = torch.cat([ours, logits[:, -1:].argmax(-1)], 1)
        logits = next(iter(feed(llama, cache, ours[:, -1:])))
    assert theirs.tolist() == ours.tolist()


def test_padded_batches_give_what_their_rows_give_alone(llama):
    settings = {"budget": 24, "interval": 40, "positions": "compact"}
    ids, pad = random_ids(2, 250), 33
    padded = ids.clone()
    padded[1, :pad] = 0
    mask = torch.ones_like(ids)
    mask[1, :pad] = 0
    cache = ManagedCache.for_model(llama, "h2o", **settings)
    out = llama.generate(
        padded, attention_mask=mask, max_new_tokens=60, do_sample=False, past_key_values=cache
    )
    for row, start in ((0, 0), (1, pad)):
        alone = ManagedCache.for_model(llama, "h2o", **settings)
        own = llama.generate(
            ids[row : row + 1, start:], max_new_tokens=60, do_sample=False, past_key_values=alone
        )
        assert out[row, -60:].tolist() == own[0, -60:].tolist()


@pytest.mark.parametrize("kv_bits", [None, 8])
def test_a_saved_cache_goes_on_the_same(llama, kv_bits):
    config = make_cache_config("h2o", budget=24, interval=40, positions="compact", kv_bits=kv_bits)
    cache = ManagedCache.for_model(llama, config)
    list(feed(llama, cache, random_ids(1, 333)))
    opened = ManagedCache.from_state(*cache.state(), model=llama, config=config)
    more = random_ids(1, 150, seed=5)
    first, second = (torch.cat(list(feed(llama, c, more)), 1) for c in (cache, opened))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("dtype", "bits", "bound"),
    [(torch.float32, None, 2e-4), (torch.bfloat16, None, 2e-2), (torch.float32, 8, 4e-2)],
)
def test_rounding_does_not_add_up_over_2000_steps(dtype, bits, bound):
    """Keys that are turned at each of 2 000 eviction steps, against one turn in float64."""
    generator = torch.Generator().manual_seed(0)
    frequencies = 10_000.0 ** -(torch.arange(16) / 16)
    compact = CompactPositions(Rotation(tuple(frequencies.tolist())), trained=8192)
    keys = torch.nn.functional.normalize(torch.randn(8, 32, generator=generator), dim=-1)
    head = HeadTokens(keys.to(dtype), keys.to(dtype), torch.arange(8), keys.new_zeros(8, 0))
    first = torch.randint(0, 4000, (8,), generator=generator)
    head = head if bits is None else head.quantised()
    if bits is not None or dtype != torch.float32:
        head = compact.with_unrotated(head, first)
    was = first
    tokens = RaggedTokens(**head.columns(), lengths=(8,))
    for stop in torch.randint(8, 7680, (2000,), generator=generator).tolist():
        tokens = compact.compacted(tokens, [was], 8, stop)
        was = torch.arange(stop - 8, stop)
    angle = (was - first)[:, None].double() * torch.tensor(compact.rotation.frequencies).double()
    a, b = keys.to(dtype).double().chunk(2, -1)
    expected = torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
    assert (tokens.floats().keys.double() - expected).norm(dim=-1).max() < bound


@pytest.mark.parametrize("kind", ["dynamic"])
def test_a_rotation_that_changes_with_the_length_is_refused(kind):
    model = model_of(kind=kind)
    with pytest.raises(ModelError, match="rotary positions are of the kind dynamic"):
        ManagedCache.for_model(model, "h2o", budget=24, positions="compact", interval=40)
    cache = ManagedCache.for_model(model, "h2o", budget=24, interval=40)
    assert not cache.reads_any_length


def test_what_cannot_be_compact_says_so(llama):
    with pytest.raises(PolicyError, match="keeps every token, so its positions cannot be compact"):
        make_cache_config(positions="compact")
    with pytest.raises(ModelError, match="an interval of 512 tokens leaves no room in the 160"):
        ManagedCache.for_model(llama, "h2o", budget=24, positions="compact")
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, **ends))
    with pytest.raises(ModelError, match="no rotary positions"):
        ManagedCache.for_model(model, "h2o", budget=24, positions="compact", interval=40)
    cache = ManagedCache.for_model(
        llama, "h2o", budget=24, interval=40, positions="compact", protected=[(0, 160)]
    )
    with pytest.raises(CacheError, match="160 protected tokens do not fit into the 120 positions"):
        list(feed(llama, cache, random_ids(1, 300)))


def test_tokens_stand_as_far_apart_as_in_the_text_while_there_are_positions():
    places = torch.tensor([0, 1, 5, 90, 93, 99], dtype=torch.int32)
    for seen, start, wanted in [
        (100, 100, [0, 1, 5, 90, 93, 99]),
        (100, 60, [0, 1, 2, 50, 53, 59]),
        (100, 8, [0, 1, 2, 3, 4, 7]),
        (1_000, 6, [0, 1, 2, 3, 4, 5]),
    ]:
        assert compact_positions(places, seen, start).tolist() == wanted


def test_compact_positions_are_the_original_ones_where_all_fit(llama):
    logits = []
    for positions in ("compact", "original"):
        config = make_cache_config("h2o", budget=24, interval=40, positions=positions)
        cache = ManagedCache.for_model(llama, config)
        logits.append(torch.cat(list(feed(llama, cache, random_ids(1, 120))), 1))
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)
