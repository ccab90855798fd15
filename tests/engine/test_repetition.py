"""Policies that have the text repeated: KVzip against its authors' definition, and the engine."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from namm_llm.cache import ManagedCache
from namm_llm.engine import repetition
from namm_llm.errors import ContextError, PolicyError
from namm_llm.policies.kvzip import KVzip
from tests.tiny import save_tiny

INTERVAL = 64


def defined(model, ids, asked, span, sinks):
    """Scores `[layers, G, chunk]`: the largest attention of the repetition, normalised over the
    first tokens, the chunk and the repetition, as in attention/score.py of the authors' code.
    """
    caught, hooks = {}, []
    for index, layer in enumerate(model.model.layers):
        hooks.append(
            layer.self_attn.q_proj.register_forward_hook(
                lambda *args, index=index: caught.update({index: args[2]})
            )
        )
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache)
    repeated = torch.cat([asked, ids[:, span[0] : span[1]]], 1)
    count, new = ids.shape[1], repeated.shape[1]
    model(repeated, past_key_values=cache)
    for hook in hooks:
        hook.remove()
    at = torch.arange(count, count + new)[None]
    found = []
    for index, layer in enumerate(cache.layers):
        keys = layer.keys[0]
        groups, _, size = keys.shape
        query = caught[index].view(1, new, -1, size).transpose(1, 2)
        cos, sin = model.model.rotary_emb(query, at)
        half = torch.cat([-query[..., size // 2 :], query[..., : size // 2]], -1)
        query = (query * cos[:, None] + half * sin[:, None])[0].view(groups, -1, new, size)
        chosen = torch.cat([keys[:, :sinks], keys[:, span[0] : span[1]], keys[:, count:]], 1)
        logits = query @ chosen[:, None].mT / size**0.5
        causal = torch.ones(new, new, dtype=torch.bool).tril()
        logits[..., -new:] = logits[..., -new:].masked_fill(~causal, -torch.inf)
        weights = logits.softmax(-1)[..., sinks : sinks + span[1] - span[0]]
        found.append(weights.amax((1, 2)))
    return torch.stack(found)


def states(cache):
    return torch.stack(
        [
            torch.stack([head.state[:, 0] for head in layer.sequences[0].retained.heads()])
            for layer in cache.managed
        ]
    )


@pytest.mark.parametrize("chunk", [1000, 120])
def test_scores_are_the_authors(make_runner, long_text, monkeypatch, chunk):
    """Of a text in one chunk, and of one in several; all tokens stay, so that all scores do."""
    monkeypatch.setattr(repetition, "PIECE", 50)
    runner = make_runner(policy=KVzip(chunk=chunk), budget=1.0, interval=INTERVAL)
    found = states(runner.read(long_text).cache).float()
    model, format = runner.loaded.model, runner.session.format
    ids, first = format.document(long_text), max(format.head_tokens, 4)
    wanted, asked = [], format.request(repetition.WHOLE)
    for start in range(first, len(ids), chunk):
        span = (start, min(start + chunk, len(ids)))
        if start > first:
            asked = format.request(
                repetition.PART.format(start=format.decode(ids[start - 8 : start]))
            )
        with torch.no_grad():
            wanted.append(defined(model, torch.tensor([ids]), torch.tensor([asked]), span, first))
    torch.testing.assert_close(found[..., first:], torch.cat(wanted, -1), rtol=2e-3, atol=1e-6)
    assert (found[..., :first] == 0).all()


def test_nothing_goes_before_the_text_was_repeated(make_runner, long_text):
    runner = make_runner(policy="kvzip", budget=0.25, interval=INTERVAL)
    document = runner.read(long_text)
    stats = document.cache.stats()
    assert stats.kept_fraction == pytest.approx(0.25, abs=0.01)
    best = make_runner(policy=KVzip(), budget=1.0, interval=INTERVAL).read(long_text)
    scores = states(best.cache)
    first = max(runner.session.format.head_tokens, 4)
    stays = torch.zeros(scores.shape, dtype=torch.bool)
    for layer, rows in zip(document.cache.managed, stays, strict=True):
        for head, row in zip(layer.sequences[0].retained.heads(), rows, strict=True):
            row[head.positions.long()] = True
    assert stays[..., :first].all()
    free = slice(first, -1)  # the newest token stays too
    assert scores[..., free][stays[..., free]].min() >= scores[..., free][~stays[..., free]].max()


def test_later_tokens_stay_until_the_next_text(make_runner, long_text):
    runner = make_runner(policy="kvzip", budget=0.25, interval=INTERVAL)
    document = runner.read(long_text)
    before = document.cache.stats()
    longer = document.extend(" And a coin was found in the vault by the fox." * 8)
    after = longer.cache.stats()
    assert after.seen_tokens > before.seen_tokens
    assert after.kept_fraction == pytest.approx(0.25, abs=0.01)
    assert document.ask("What?", max_tokens=INTERVAL + 8, stop_loops=False).usage.output_tokens


def test_a_prompt_is_repeated_too_and_its_end_stays(make_runner, long_text):
    runner = make_runner(policy="kvzip", budget=0.02, interval=INTERVAL)
    result = runner.generate(long_text, max_tokens=4)
    assert 64 <= result.cache.stored_tokens < 80


def test_a_longer_prompt_is_repeated_as_a_whole(make_runner, long_text):
    """It goes on from a kept cache, part of which was evicted already."""
    runner = make_runner(policy="kvzip", budget=0.25, interval=INTERVAL, prefix_caches=2)
    first = runner.generate(long_text, max_tokens=4)
    second = runner.generate(long_text + first.text + " The fox sleeps." * 9, max_tokens=4)
    assert second.usage.cached_tokens > 400
    assert 0.2 < second.cache.kept_fraction < 0.5


def test_a_memory_opens_again(make_runner, long_text, tmp_path):
    runner = make_runner(policy="kvzip", budget=0.25, interval=INTERVAL)
    document = runner.read(long_text)
    document.save(tmp_path / "memory")
    again = runner.open(tmp_path / "memory")
    assert again.ask("What?", max_tokens=8).text == document.ask("What?", max_tokens=8).text


def test_progress_goes_on_while_the_text_is_repeated(make_runner, long_text):
    seen = []
    runner = make_runner(policy=KVzip(chunk=120), budget=0.25, interval=INTERVAL)
    runner.read(long_text, on_progress=lambda done, total: seen.append((done, total)))
    assert len([done for done, _ in seen if done < seen[-1][0]]) > 2


def test_a_text_that_leaves_no_room_is_refused(tmp_path, make_runner, long_text):
    from namm_llm.runner import Runner

    folder = save_tiny(tmp_path / "short", positions=500)
    runner = Runner.load(folder, policy="kvzip", budget=0.25, interval=INTERVAL)
    with pytest.raises(ContextError, match=r"once more behind itself.*trained on 500 positions"):
        runner.read(long_text)


def test_a_plain_call_of_the_model_is_refused(make_runner):
    model = make_runner().loaded.model
    with pytest.raises(PolicyError, match=r"needs the text a second time.*use Runner"):
        ManagedCache.for_model(model, "kvzip", budget=0.25)
