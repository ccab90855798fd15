"""The whole cache with kernels wherever they replace the definition, against the
cache without any.
"""

from __future__ import annotations

import pytest
import torch

from namm_llm.attention import backend as kernels
from namm_llm.cache import ManagedCache
from namm_llm.namm import Namm, NammSettings
from tests.architectures import random_ids, random_llama

PARTS = (("replay", "max_attention"), ("observe", "spectrogram"), ("observe", "total"))
OBSERVED = {
    "replay": ["max_attention"],
    "namm": ["max_attention", "spectrogram"],
    "h2o": ["total"],
    "snapkv": ["total"],
    "tova": ["total"],
}


def spy(monkeypatch) -> list[str]:
    """Names of the kernels' entries, as they are called."""
    used: list[str] = []
    for part, name in (("grouped", "grouped_attention"), ("compact", "gather"), *PARTS):
        module = pytest.importorskip(f"namm_llm.attention.triton.{part}")
        original = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *args, name=name, original=original, **rest: (
                used.append(name) or original(*args, **rest)
            ),
        )
    return used


def some_namm() -> Namm:
    settings = NammSettings(replay=True)
    zeros = Namm.zeros(settings=settings)
    theta = 0.1 * torch.randn(zeros.vector.shape, generator=torch.Generator().manual_seed(0))
    width = settings.state_width
    return Namm.from_vector(theta, torch.full((width,), 0.02), torch.full((width,), 0.01), settings)


@pytest.mark.parametrize(
    ("policy", "bits"),
    [
        ("replay", None),
        ("replay", 8),
        ("namm", None),
        ("h2o", None),
        ("snapkv", None),
        ("tova", None),
    ],
)
def test_the_same_tokens_stay_and_the_same_logits_come(policy, bits, device, monkeypatch):
    model = random_llama(layers=2, head_dim=64).to(device)
    ids = random_ids(1, 75).to(device)
    settings = {
        "budget": 20,
        "interval": 32,
        "kv_bits": bits,
        **({"namm": some_namm().to(device)} if policy == "namm" else {}),
    }
    used = spy(monkeypatch)
    monkeypatch.setattr(kernels, "_ON_CPU", {})

    def run(*, usable: bool):
        monkeypatch.setattr(kernels, "usable", lambda tensor: usable)
        cache = ManagedCache.for_model(model, policy, **settings)
        logits = [
            model(ids[:, part], past_key_values=cache).logits[0]
            for part in (slice(70), slice(70, 71), slice(71, 75))
        ]
        return torch.cat(logits), cache

    (expected, plain), (found, fused) = run(usable=False), run(usable=True)
    assert set(used) == {"grouped_attention", "gather", *OBSERVED[policy]}
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    for one, other in zip(fused.managed, plain.managed, strict=True):
        assert one.sequences[0].retained.lengths == other.sequences[0].retained.lengths
        assert torch.equal(
            one.sequences[0].retained.positions, other.sequences[0].retained.positions
        )
        torch.testing.assert_close(
            one.sequences[0].retained.state, other.sequences[0].retained.state, atol=1e-3, rtol=1e-2
        )


@pytest.mark.parametrize("bits", [None, 8])
def test_static_decoding_gives_the_same_tokens(bits, device, monkeypatch):
    """An eviction step on the way; lengths are read by the kernel."""
    StaticDecoder = pytest.importorskip("namm_llm.engine.graph.decoder").StaticDecoder
    model = random_llama(layers=2, head_dim=64).to(device)
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)
    cache = ManagedCache.for_model(model, "replay", budget=20, interval=16, kv_bits=bits)
    model(random_ids(1, 44).to(device), past_key_values=cache)
    token = torch.tensor([[7]], device=device)
    expected = StaticDecoder(model, cache, graph=False).greedy(token, 8)[0].tolist()
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    assert StaticDecoder(model, cache, graph=False).greedy(token, 8)[0].tolist() == expected
