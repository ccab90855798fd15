"""A model over several devices: each layer of the cache lies beside its layer's weights.

The second device is torch's `meta`, which computes shapes only, and accelerate's disk, from which a
layer's weights come when it computes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoModelForCausalLM

from namm_lab.bench.shapes import random_model, shape_named
from namm_llm import ManagedCache, Runner, make_cache_config
from namm_llm.cache.transformers import layer_devices
from namm_llm.engine import forward
from tests.architectures import random_ids, random_llama

ON_DISK = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "disk",
    "lm_head": "disk",
}
ON_DISK["model.rotary_emb"] = "cpu"
TEXT = "The access code of the amber vault is 48213. " * 60


def split_llama():
    """Layers 0 and 1 on the CPU, layer 2 and what comes after it on the meta device."""
    model = random_llama()
    for part in (model.model.layers[2], model.model.norm, model.lm_head):
        part.to("meta")
    model.model.layers[2].register_forward_pre_hook(
        lambda _, args, kwargs: (to_meta(args), to_meta(kwargs)), with_kwargs=True
    )
    return model


def to_meta(value):
    """As accelerate's hooks bring what goes into a layer to its device."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, tuple):
        return tuple(map(to_meta, value))
    return {key: to_meta(item) for key, item in value.items()} if isinstance(value, dict) else value


def places(cache: ManagedCache) -> list[set[str]]:
    return [
        {t.device.type for s in layer.sequences for t in s.tensors()} for layer in cache.managed
    ]


def test_each_layer_of_the_cache_is_where_its_weights_are():
    model = split_llama()
    assert layer_devices(model) == {
        0: torch.device("cpu"),
        1: torch.device("cpu"),
        2: torch.device("meta"),
    }
    cache = ManagedCache.for_model(model, "full")
    with torch.no_grad():
        logits = model(random_ids(1, 40), past_key_values=cache).logits
        assert logits.device.type == "meta"
        cache.evict()
        model(random_ids(1, 1), past_key_values=cache, position_ids=torch.tensor([[40]]))
    assert places(cache) == [{"cpu"}, {"cpu"}, {"meta"}]


def test_a_saved_cache_opens_layer_by_layer_beside_the_weights():
    eviction = make_cache_config("keydiff", budget=20, interval=16)
    whole = random_llama()
    cache = ManagedCache.for_model(whole, eviction)
    with torch.no_grad():
        whole(random_ids(1, 40), past_key_values=cache)
    opened = ManagedCache.from_state(*cache.state(), model=split_llama(), config=eviction)
    assert places(opened) == [{"cpu"}, {"cpu"}, {"meta"}]
    for one, other in zip(cache.managed[:2], opened.managed[:2], strict=True):
        assert torch.equal(one.sequences[0].retained.keys, other.sequences[0].retained.keys)
    assert opened.kept_tokens() == cache.kept_tokens()


def test_weights_that_come_from_disk_answer_as_weights_in_memory(tiny_folder: Path, tmp_path: Path):
    """Model-wide budget: the layers' scores meet on one device."""
    settings = {"policy": "replay", "budget": 40}
    here, there = (
        Runner.load(tiny_folder, **settings),
        Runner.load(tiny_folder, device=ON_DISK, **settings),
    )
    assert any(weight.is_meta for weight in there.loaded.model.parameters())
    expected, found = (runner.read(TEXT) for runner in (here, there))
    assert (
        found.info()["stored_tokens"]
        == expected.info()["stored_tokens"]
        < found.info()["seen_tokens"]
    )
    question = {"max_tokens": 8, "temperature": 0.0}
    assert found.ask("Which code?", **question).text == expected.ask("Which code?", **question).text
    found.save(tmp_path / "text.namm")
    assert there.decoding.startswith(
        "plain calls: its weights are on cpu, meta, and only one device will do"
    )
    opened = there.open(tmp_path / "text.namm")
    assert (
        opened.ask("Which code?", **question).text == expected.ask("Which code?", **question).text
    )


def test_half_precision_stays_where_a_part_of_the_weights_is_elsewhere(
    tiny_folder: Path, tmp_path: Path
):
    """On a CPU alone small models compute in float32; weights on disk would not follow."""
    AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path
    )
    for file in tiny_folder.glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    runner = Runner.load(tmp_path, device=ON_DISK)
    assert {weight.dtype for weight in runner.loaded.model.parameters()} == {torch.bfloat16}
    assert runner.generate("The code", max_tokens=2).usage.output_tokens == 2


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_cards(tiny_folder: Path):
    expected = Runner.load(tiny_folder, device="cuda:0", policy="replay", budget=40).read(TEXT)
    found = Runner.load(tiny_folder, device="balanced", policy="replay", budget=40).read(TEXT)
    assert len({layer.sequences[0].retained.keys.device for layer in found.cache.managed}) == 2
    question = {"max_tokens": 8, "temperature": 0.0}
    assert found.ask("Which code?", **question).text == expected.ask("Which code?", **question).text


@pytest.mark.long
def test_a_layer_of_a_70b_over_two_placements(tmp_path: Path):
    """8 192 hidden, 64 heads, 8 KV heads, 28 672 in the MLP: its attention on the CPU, its MLP on
    disk, against the same layer in memory. The vocabulary is a small one.
    """
    shape = replace(shape_named("70b", layers=1), vocabulary=512)
    model = random_model(shape, torch.bfloat16)
    ids = torch.randint(0, 512, (1, 200), generator=torch.Generator().manual_seed(0))
    eviction = make_cache_config("h2o", budget=48, interval=64)

    def read() -> tuple[torch.Tensor, ManagedCache]:
        cache = ManagedCache.for_model(model, eviction)
        return list(forward.feed(model, cache, ids, chunk=64, last_only=True))[-1], cache

    expected, _ = read()
    parts = dict.fromkeys(
        ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu"
    )
    layer = "model.layers.0"
    parts |= {f"{layer}.{part}": "cpu" for part in ("self_attn", "input_layernorm")}
    parts |= {f"{layer}.{part}": "disk" for part in ("mlp", "post_attention_layernorm")}
    dispatch_model(model, parts, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    elsewhere = sum(weight.numel() for weight in model.parameters() if weight.is_meta)
    assert elsewhere == 3 * 8192 * 28_672 + 8192
    found, cache = read()
    assert torch.equal(found, expected)
    assert cache.kept_tokens() == [[[48 + 200 % 64] * 8]]
    assert places(cache) == [{"cpu"}]
