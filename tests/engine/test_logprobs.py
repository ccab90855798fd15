"""Log-probabilities are the model's own, whatever the sampling parameters do with its logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from namm_llm.errors import UsageError
from namm_llm.runner import Runner

PROMPT = "The quick brown fox"


def expected(runner: Runner, ids: list[int]) -> torch.Tensor:
    """`[T, V]`: of the token behind each one, by one plain call of the model."""
    with torch.no_grad():
        logits: Any = runner.loaded.model(torch.tensor([ids])).logits[0]
    return logits.float().log_softmax(-1)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5, "seed": 3, "top_k": 5}])
def test_each_token_has_the_log_probability_that_the_model_gave_it(
    runner: Runner, settings: dict[str, Any]
) -> None:
    pieces = list(stream := runner.stream(PROMPT, max_tokens=12, logprobs=3, **settings))
    found = stream.result.logprobs
    assert found is not None
    assert len(found) == 12
    assert [each for piece in pieces for each in piece.logprobs] == list(found)
    ids = [0, *runner.encode(PROMPT)]
    wanted = expected(runner, ids + [each.token_id for each in found])
    for at, each in enumerate(found, len(ids) - 1):
        assert each.logprob == pytest.approx(float(wanted[at, each.token_id]), abs=1e-4)
        assert [top.token_id for top in each.top] == wanted[at].topk(3).indices.tolist()
        assert each.text == runner.loaded.backend.decode([each.token_id], skip_special_tokens=False)


def test_none_are_reported_unless_they_are_asked_for(runner: Runner) -> None:
    pieces = list(stream := runner.stream(PROMPT, max_tokens=4))
    assert stream.result.logprobs is None
    assert all(piece.logprobs == () for piece in pieces)


def test_no_alternatives_are_reported_with_zero(runner: Runner) -> None:
    found = runner.generate(PROMPT, max_tokens=2, logprobs=0).logprobs
    assert found is not None
    assert [each.top for each in found] == [(), ()]
    assert found[0].to_openai()["top_logprobs"] == []


def test_a_part_of_a_character_has_no_bytes() -> None:
    from namm_llm.engine.results import TokenLogprob

    assert TokenLogprob(1, "\ufffd", -1.0).to_openai()["bytes"] is None
    assert TokenLogprob(1, "é", -1.0).to_openai()["bytes"] == [195, 169]


def test_a_bias_forbids_and_forces_tokens(runner: Runner) -> None:
    first = runner.generate(PROMPT, max_tokens=1, logprobs=1).logprobs
    assert first is not None
    likeliest = first[0].token_id
    other = runner.generate(PROMPT, max_tokens=1, logprobs=1, logit_bias={likeliest: -100})
    assert other.logprobs is not None
    assert other.logprobs[0].token_id != likeliest
    assert other.logprobs[0].top[0].token_id == likeliest, "the model's own are reported"
    forced = runner.generate(PROMPT, max_tokens=3, logprobs=0, logit_bias={9: 100})
    assert forced.logprobs is not None
    assert [each.token_id for each in forced.logprobs] == [9, 9, 9]


@pytest.mark.parametrize("bias", [{3: 101}, {3: float("nan")}, {"3": 1}])
def test_a_bias_that_is_none_is_refused(runner: Runner, bias: Any) -> None:
    with pytest.raises(UsageError, match="logit_bias maps token ids to numbers from -100 to 100"):
        runner.generate(PROMPT, logit_bias=bias)


def test_a_bias_of_a_token_outside_the_vocabulary_is_refused(runner: Runner) -> None:
    with pytest.raises(UsageError, match="500000 is none"):
        runner.generate(PROMPT, logit_bias={500_000: 1})
