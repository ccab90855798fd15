"""Teacher-forced scores, and that a population in one batch gets what its candidates get alone."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from namm_lab.train.documents import EvalDocument
from namm_lab.train.evolution import share_of_full
from namm_lab.train.teacher_forcing import MEASURES, teacher_forced_scores
from namm_llm.config import make_cache_config
from namm_llm.namm import Namm
from tests.architectures import random_llama
from tests.cache.test_eviction import random_namm
from tests.lab.train.echo import INTERVAL, Echo


@pytest.fixture(scope="module")
def llama():
    return random_llama(layers=2)


def row(namm: Namm | None = None, **settings):
    return make_cache_config("namm" if namm else "full", namm=namm, interval=INTERVAL, **settings)


@torch.no_grad()
def test_marks_of_the_full_cache_are_those_of_the_dense_model(llama):
    document = Echo(llama).document("echo", 3)
    wrong = EvalDocument(
        "echo",
        document.document,
        document.questions,
        tuple((*answer[:-1], answer[-1] ^ 1) for answer in document.answers),
    )
    for given, tokens, exact in ((document, 1.0, 1.0), (wrong, 0.75, 0.0)):
        expected = []
        for question, answer in zip(given.questions, given.answers, strict=True):
            ids = torch.tensor([[*given.document, *question, *answer]])
            logits = llama(ids, past_key_values=DynamicCache(config=llama.config)).logits[
                0, -len(answer) - 1 : -1
            ]
            expected.append(
                logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).mean().exp()
            )
        found = dict(
            zip(MEASURES, teacher_forced_scores(llama, given, [row()])[0].tolist(), strict=True)
        )
        assert found["likelihood"] == pytest.approx(float(sum(expected) / 2), rel=1e-4)
        assert (found["tokens"], found["exact"]) == (tokens, exact)


@pytest.mark.parametrize("budget_scope", ["head", "model"])
def test_a_population_is_marked_as_its_candidates_alone(llama, budget_scope):
    document = Echo(llama, 117).document("echo", 11)  # the questions cross an update
    configs = [
        row(),
        *(
            row(random_namm(seed), budget=budget, budget_scope=budget_scope)
            for seed in (1, 2)
            for budget in (0.2, 0.5, None)
        ),
    ]
    together = teacher_forced_scores(llama, document, configs)
    alone = torch.cat([teacher_forced_scores(llama, document, [config]) for config in configs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert len({round(float(value), 6) for value in together[:, 0]}) >= 5  # they do differ


def test_parameters_of_zero_keep_everything_by_the_threshold(llama):
    document = Echo(llama).document("echo", 5)
    full, zeros = teacher_forced_scores(llama, document, [row(), row(Namm.zeros())])
    torch.testing.assert_close(zeros, full)


def test_shares_are_of_each_task_and_leave_out_what_the_full_cache_cannot_do():
    found = torch.tensor(
        [
            [[0.5, 0.5, 0.0], [0.25, 0.5, 0.0]],
            [[0.5, 1.0, 0.0], [0.5, 0.25, 1.0]],
            [[0.1, 0.0, 0.0], [0.1, 0.0, 0.0]],
        ]
    )
    shares = share_of_full(["a", "a", "b"], found)
    assert shares[0, :2].tolist() == pytest.approx([(0.375 / 0.5 + 1.0) / 2, 0.5])
    assert shares[0, 2].isnan()
