from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from namm_llm.config import SamplingParams
from namm_llm.engine.sampling import Sampler
from namm_llm.errors import UsageError

LOGITS = torch.tensor([0.1, 3.0, 2.0, -1.0, 2.5])


def drawn(params: SamplingParams, count: int = 200) -> set[int]:
    sampler = Sampler(params)
    return {int(sampler.pick(LOGITS)) for _ in range(count)}


def test_greedy_takes_the_likeliest_token() -> None:
    assert drawn(SamplingParams()) == {1}


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"top_k": 2}, {1, 4}),
        ({"top_p": 0.4}, {1}),
        ({"min_p": 0.5}, {1, 4}),
        ({}, {0, 1, 2, 3, 4}),
        ({"top_p": 1.0}, {0, 1, 2, 3, 4}),
        ({"top_k": 0}, {0, 1, 2, 3, 4}),
    ],
)
def test_limits_leave_only_likely_tokens(limits: dict[str, float], left: set[int]) -> None:
    assert drawn(SamplingParams(temperature=1.0, seed=0, **limits)) == left  # type: ignore[arg-type]


def test_a_seed_makes_sampling_repeatable() -> None:
    params = SamplingParams(temperature=2.0, seed=7)
    first, second = Sampler(params), Sampler(params)
    assert [int(first.pick(LOGITS)) for _ in range(20)] == [
        int(second.pick(LOGITS)) for _ in range(20)
    ]


def test_without_a_seed_runs_differ() -> None:
    flat = torch.zeros(1000)
    assert Sampler(SamplingParams(temperature=1.0)).pick(flat) != Sampler(
        SamplingParams(temperature=1.0)
    ).pick(flat)


def test_draws_come_as_often_as_the_logits_say() -> None:
    sampler = Sampler(SamplingParams(temperature=1.0, seed=1))
    counts = torch.bincount(torch.stack([sampler.pick(LOGITS) for _ in range(4000)]), minlength=5)
    torch.testing.assert_close(counts / 4000, LOGITS.softmax(-1), atol=0.02, rtol=0)


def test_a_token_without_a_chance_is_never_drawn() -> None:
    """Whatever the draw, also the smallest and the largest one."""
    hidden = torch.tensor([-torch.inf, 1.0, -torch.inf, 1.0, -torch.inf])
    sampler = Sampler(SamplingParams(temperature=1.0, seed=1))
    assert {int(sampler.pick(hidden)) for _ in range(200)} == {1, 3}


@pytest.mark.parametrize("penalty", [1.3, 10.0])
def test_repetition_penalty_counts_prompt_and_answer(penalty: float) -> None:
    """As transformers has it, which gets all ids for each token."""
    theirs = RepetitionPenaltyLogitsProcessor(penalty=penalty)
    sampler, ids = Sampler(SamplingParams(repetition_penalty=penalty), [1, 3]), [1, 3]
    for _ in range(3):
        token = sampler.pick(LOGITS)
        assert token == theirs(torch.tensor([ids]), LOGITS[None].clone()).argmax()  # type: ignore[arg-type]
        sampler.came(token)
        ids.append(int(token))
    assert 4 in ids


@pytest.mark.parametrize(
    ("presence", "frequency"), [(0.0, 0.7), (0.7, 0.0), (0.4, 0.3), (-0.5, 0.0)]
)
def test_presence_and_frequency_count_the_answer_alone(presence: float, frequency: float) -> None:
    """OpenAI's definition: logits minus `count * frequency` minus `(count > 0) * presence`."""
    params = SamplingParams(presence_penalty=presence, frequency_penalty=frequency)
    sampler, counts = Sampler(params, [1, 1, 3]), torch.zeros(5)
    answer = []
    for _ in range(12):
        token = sampler.pick(LOGITS)
        assert token == (LOGITS - counts * frequency - (counts > 0) * presence).argmax()
        sampler.came(token)
        counts[token] += 1
        answer.append(int(token))
    assert answer[0] == 1  # whatever the prompt holds
    assert (len(set(answer)) > 1) == (frequency > 0 or presence > 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"presence_penalty": 2.5}, "presence_penalty must be a number from -2 to 2, not 2.5."),
        ({"frequency_penalty": -3}, "frequency_penalty must be a number from -2 to 2, not -3."),
        ({"max_tokens": 0}, "max_tokens must be a whole number of tokens from 1 on, not 0."),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number of tokens from 1 on, not 1.5."),
        ({"temperature": -1}, "temperature must be a number from 0 on, not -1."),
        ({"temperature": float("nan")}, "temperature must be a number from 0 on, not nan."),
        ({"top_k": -1}, "top_k must be a whole number from 0 on, not -1."),
        ({"top_p": 1.5}, "top_p must be a number above 0 and up to 1, not 1.5."),
        ({"min_p": 2}, "min_p must be a number from 0 to 1, not 2."),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0, not 0."),
        ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, not -1."),
        ({"stop": ("",)}, "stop must be texts that are not empty, not ('',)."),
        ({"stop": 5}, "stop must be texts that are not empty, not (5,)."),
    ],
)
def test_wrong_parameters_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        SamplingParams(**wrong)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_override_refuses_unknown_names() -> None:
    with pytest.raises(
        UsageError, match=r"sampling has no setting 'tempurature' \(did you mean temperature\?\)"
    ):
        SamplingParams().override({"tempurature": 1})


def test_one_stop_text_may_stand_alone() -> None:
    assert SamplingParams(stop="end").stop == ("end",)  # type: ignore[arg-type]
    assert SamplingParams(stop=None).stop == ()  # type: ignore[arg-type]
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]
