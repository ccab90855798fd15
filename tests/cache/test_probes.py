"""Probes: what they find is what a dense computation finds, and nothing of them stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from namm_llm.cache import ManagedCache
from namm_llm.errors import CacheError, PolicyError
from namm_llm.namm import Memory, Namm, Probes, Recency, Spectrogram
from namm_llm.policies import NammPolicy, make_cache_config
from namm_llm.policies.settings import config_of, settings_of, tensors_of
from tests.architectures import random_ids, random_llama

INTERVAL = 48
PROBES = ((7, 8, 9, 10, 11), (20, 21), (30, 31, 32))


def by_probes(*, sign: float = 1.0, every: int = 1) -> Namm:
    """Scores by what probes paid, and by nothing else."""
    zeros = Namm.zeros(
        0,
        spectrogram=Spectrogram(lowest=0),
        recency=Recency(0),
        memory=Memory(probed=True),
        probes=Probes(("?",), every=every),
    )
    return replace(zeros, theta=torch.tensor([sign, 0.0]))


def eviction(namm: Namm | None = None, *, exact: bool = True, probes=PROBES, **settings):
    policy = NammPolicy(namm or by_probes(), exact=exact, probes=probes)
    return make_cache_config(policy, interval=INTERVAL, **settings)


@torch.no_grad()
def read(model, ids, made, chunk: int = INTERVAL) -> ManagedCache:
    cache = ManagedCache.for_population(model, made if isinstance(made, list) else [made])
    at = 0
    while at < ids.shape[1]:
        stop = min(ids.shape[1], at + min(chunk, INTERVAL - at % INTERVAL))
        model(ids[:, at:stop], past_key_values=cache)
        at = stop
    return cache


@torch.no_grad()
def dense(model, ids, probe) -> list[torch.Tensor]:
    """For each layer the most attention `[G, N]` that the probe, right behind the ids, pays to each
    of them.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache)
    attentions = model(
        torch.tensor([probe]), past_key_values=cache, output_attentions=True
    ).attentions
    model.set_attn_implementation(before)
    return [a[0, :, :, : ids.shape[1]].reshape(2, -1, ids.shape[1]).amax(1) for a in attentions]


@pytest.fixture(scope="module")
def llama():
    return random_llama(layers=2)


def test_the_state_is_what_a_dense_computation_says(llama):
    ids = random_ids(1, INTERVAL)
    cache = read(llama, ids, eviction(by_probes(sign=0.0)))
    found = [dense(llama, ids, probe) for probe in PROBES]
    for layer, managed in enumerate(cache.managed):
        expected = torch.stack([each[layer] for each in found]).amax(0)
        for head, segment in enumerate(managed.sequences[0].retained.segments()):
            torch.testing.assert_close(segment.state[:, 0], expected[head], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("budget_scope", ["head", "layer", "model"])
def test_what_probes_look_at_stays(llama, budget_scope):
    ids = random_ids(1, INTERVAL)
    cache = read(llama, ids, eviction(budget=12, budget_scope=budget_scope))
    paid = torch.stack([torch.stack(dense(llama, ids, probe)) for probe in PROBES]).amax(
        0
    )  # [L, G, N]
    paid[..., -1] = torch.inf  # the newest always stays
    groups = {
        "head": paid.flatten(0, 1)[:, None],
        "layer": paid,
        "model": paid.flatten(0, 1)[None],
    }[budget_scope]
    expected = torch.cat(
        [one >= one.flatten().topk(12 * len(one)).values[-1] for one in groups]
    ).view_as(paid)
    for layer, managed in enumerate(cache.managed):
        for head, segment in enumerate(managed.sequences[0].retained.segments()):
            assert segment.positions.tolist() == expected[layer, head].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("kv_bits", [None, 8])
def test_nothing_of_a_probe_stays(llama, kv_bits):
    """Keys, values, positions and answers are those of a cache without probes; its scores say
    nothing here, so nothing is evicted.
    """
    ids = random_ids(1, 3 * INTERVAL + 5)
    zeros = replace(by_probes(), theta=torch.zeros(2))
    probed = read(llama, ids, eviction(zeros, kv_bits=kv_bits))
    plain = read(llama, ids, make_cache_config("full", interval=INTERVAL, kv_bits=kv_bits))
    assert probed.seen_tokens() == plain.seen_tokens()
    assert probed.stats().stored_tokens == plain.stats().stored_tokens
    for a, b in zip(probed.managed, plain.managed, strict=True):
        for name in ("keys", "values", "positions"):
            assert torch.equal(
                getattr(a.sequences[0].retained, name), getattr(b.sequences[0].retained, name)
            )
    more = torch.tensor([[5]])
    with torch.no_grad():
        assert torch.equal(
            llama(more, past_key_values=probed).logits, llama(more, past_key_values=plain).logits
        )


@pytest.mark.parametrize("chunk", [1, 16, 512])
@pytest.mark.parametrize("kv_bits", [None, 8])
def test_how_it_is_cut_does_not_matter(llama, chunk, kv_bits):
    ids, made = random_ids(1, 4 * INTERVAL), eviction(budget=20, kv_bits=kv_bits)
    one, other = read(llama, ids, made), read(llama, ids, made, chunk)
    for a, b in zip(one.managed, other.managed, strict=True):
        assert torch.equal(a.sequences[0].retained.positions, b.sequences[0].retained.positions)
        torch.testing.assert_close(
            a.sequences[0].retained.state, b.sequences[0].retained.state, atol=1e-3, rtol=1e-3
        )


def test_a_batch_is_what_its_rows_are_alone(llama):
    ids = random_ids(2, 3 * INTERVAL)
    made = [eviction(budget=20), eviction(budget=9, probes=PROBES[:1])]
    batch = read(llama, ids, made)
    for row in range(2):
        alone = read(llama, ids[row : row + 1], made[row])
        for a, b in zip(batch.managed, alone.managed, strict=True):
            assert a.sequences[row].retained.lengths == b.sequences[0].retained.lengths
            assert torch.equal(
                a.sequences[row].retained.positions, b.sequences[0].retained.positions
            )


def test_a_fork_and_a_saved_cache_go_on_alike(llama):
    ids, made = random_ids(1, 4 * INTERVAL), eviction(budget=20)
    whole, begun = read(llama, ids, made), read(llama, ids[:, : 2 * INTERVAL + 5], made)
    tensors, metadata = begun.state()
    again = config_of(settings_of(made), tensors_of(made))
    assert again == made
    for cache in (
        begun.fork(),
        ManagedCache.from_state(tensors, metadata, model=llama, eviction=again),
    ):
        with torch.no_grad():
            for piece in (ids[:, 2 * INTERVAL + 5 : 3 * INTERVAL], ids[:, 3 * INTERVAL :]):
                llama(piece, past_key_values=cache)
        for a, b in zip(cache.managed, whole.managed, strict=True):
            assert torch.equal(a.sequences[0].retained.positions, b.sequences[0].retained.positions)


def test_only_each_so_many_th_update(llama):
    """At the first of two no probe is run, so no token has any attention yet."""
    ids, namm = random_ids(1, 2 * INTERVAL), replace(by_probes(every=2), theta=torch.zeros(2))
    first, second = (
        read(llama, ids[:, :length], eviction(namm)) for length in (INTERVAL, 2 * INTERVAL)
    )
    assert first.managed[0].sequences[0].retained.state.max() == 0
    assert second.managed[0].sequences[0].retained.state.max() > 0


def test_in_the_averages(llama):
    """A probe's attention is one more hop of the spectrogram, with nothing before it."""
    ids, spectrogram = random_ids(1, INTERVAL), Spectrogram(lowest=1)
    base = Namm.zeros(0, spectrogram=spectrogram, probes=Probes(averaged=True))
    without = read(
        llama,
        ids,
        make_cache_config(
            NammPolicy(Namm.zeros(0, spectrogram=spectrogram), exact=True), interval=INTERVAL
        ),
    )
    probed = read(llama, ids, eviction(base, probes=((7,),)))
    window = 0.5 * (1 - torch.cos(torch.tensor(2 * torch.pi * 16 / 32)))
    for layer, (a, b) in enumerate(zip(probed.managed, without.managed, strict=True)):
        before = model_mean(llama, ids, 7)[layer].flatten()
        expected = b.sequences[0].retained.state[:, 0] * 0.99**16 + (1 - 0.99**16) * window * before
        torch.testing.assert_close(
            a.sequences[0].retained.state[:, 0], expected, atol=1e-5, rtol=1e-4
        )


@torch.no_grad()
def model_mean(model, ids, token):
    """For each layer the group-mean attention `[G, N]` of one token behind the ids."""
    model.set_attn_implementation("eager")
    attentions = model(
        torch.cat([ids, torch.tensor([[token]])], 1), output_attentions=True
    ).attentions
    model.set_attn_implementation("namm_llm")
    return [a[0, :, -1, :-1].reshape(2, -1, ids.shape[1]).mean(1) for a in attentions]


def test_errors(llama):
    with pytest.raises(
        PolicyError, match=r"made for probes \(its texts: '\?'\), and a cache has no tokenizer"
    ):
        ManagedCache.for_model(llama, NammPolicy(by_probes()), budget=0.5)
    with pytest.raises(PolicyError, match="was not made for probes"):
        make_cache_config("namm", namm=Namm.zeros(), probes=PROBES)
    with pytest.raises(PolicyError, match="policy keydiff takes no probes"):
        make_cache_config("keydiff", budget=0.5, probes=PROBES)
    cache = ManagedCache.for_model(llama, eviction(budget=20))
    with pytest.raises(CacheError, match="read in chunks that end at multiples"):
        llama(random_ids(1, 3 * INTERVAL), past_key_values=cache)


def test_plain_generate(llama):
    """With a cache made by ids alone, and without our runner."""
    cache = ManagedCache.for_model(
        llama, "namm", namm=by_probes(), budget=20, interval=INTERVAL, probes=PROBES
    )
    llama.generate(
        random_ids(1, 2 * INTERVAL),
        past_key_values=cache,
        max_new_tokens=5,
        do_sample=False,
        prefill_chunk_size=INTERVAL,
    )
    assert cache.stats().updates == 2
    assert cache.stats().policy.endswith("3 probes " + cache.stats().policy[-4:])


def test_a_file_says_what_it_was_made_for(tmp_path):
    namm = replace(by_probes(every=3), probes=Probes(("What is it about?",), every=3))
    namm.save(tmp_path / "a.safetensors")
    assert Namm.load(tmp_path / "a.safetensors").probes == Probes(("What is it about?",), 3)
