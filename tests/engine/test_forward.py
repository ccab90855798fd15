"""The one place that calls a model: pieces change nothing, scores are those of a plain pass."""

from threading import Event

import pytest
import torch
from transformers import DynamicCache

from namm_llm.cache import ManagedCache
from namm_llm.engine.forward import feed, prefill, score, step, tokens_seen
from tests.tiny import tiny_llama

IDS = torch.randint(5, 60, (1, 50), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model():
    return tiny_llama(64)


def drain(reading):
    reports = []
    while True:
        try:
            reports.append(next(reading))
        except StopIteration as end:
            return reports, end.value


def test_prefill_reports_each_chunk_and_gives_the_last_logits(model):
    cache = ManagedCache.for_model(model)
    reports, logits = drain(prefill(model, cache, IDS[0].tolist(), chunk=20))
    with torch.no_grad():
        whole = model(IDS).logits[0, -1]
    assert reports == [20, 40, 50]
    assert tokens_seen(cache) == 50
    torch.testing.assert_close(logits, whole)


def test_prefill_stops_when_cancelled(model):
    cache, cancel = ManagedCache.for_model(model), Event()
    reading = prefill(model, cache, IDS[0].tolist(), chunk=20, cancel=cancel)
    assert next(reading) == 20
    cancel.set()
    assert drain(reading) == ([], None)
    assert tokens_seen(cache) == 20


def test_a_budget_of_the_whole_model_is_read_in_pieces_that_end_at_eviction_steps(model):
    cache = ManagedCache.for_model(
        model, policy="knorm", budget=8, budget_scope="model", interval=16
    )
    sizes = [piece.shape[1] for piece in feed(model, cache, IDS, chunk=20)]
    assert sizes == [16, 16, 16, 2]


def test_feed_gives_the_logits_of_every_token(model):
    pieces = list(feed(model, ManagedCache.for_model(model), IDS, chunk=7))
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(pieces, 1), model(IDS).logits)


@pytest.mark.parametrize("make", [ManagedCache.for_model, lambda model: DynamicCache()])
def test_scores_are_log_probabilities_of_a_plain_pass(model, make):
    cache = make(model)
    found = score(model, cache, IDS, chunk=11)
    with torch.no_grad():
        likely = model(IDS).logits.float().log_softmax(-1)
    torch.testing.assert_close(found, likely[:, :-1].gather(-1, IDS[:, 1:, None])[..., 0])
    assert tokens_seen(cache) == 49


def test_steps_go_on_where_prefill_ended(model):
    cache = ManagedCache.for_model(model)
    drain(prefill(model, cache, IDS[0, :-1].tolist(), chunk=64))
    logits = step(model, cache, IDS[:, -1:], torch.tensor([[49]]))
    with torch.no_grad():
        torch.testing.assert_close(logits, model(IDS).logits[:, -1])


def test_no_gradients_are_kept(model):
    (logits,) = feed(model, ManagedCache.for_model(model), IDS, last_only=True)
    assert not logits.requires_grad
    assert torch.is_grad_enabled()
