"""A conversation is read once: each turn spends prefill on its own words, and gets the answers that
a full read of all of it would get.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from namm_llm.errors import CacheError, UsageError
from namm_llm.models.tokenization import TokenizationCache
from namm_llm.runner import Runner
from tests.tiny import save_tiny

EVICTING: dict[str, Any] = {"policy": "h2o", "budget": 0.25, "interval": 64}
SETTINGS = pytest.mark.parametrize("settings", [{}, EVICTING], ids=["full", "h2o"])
DOCUMENT = " ".join(f"The vault {n} holds {n * 7919 % 1000} coins and a fox." for n in range(100))
TURNS = 20


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "long-llama", positions=16384)


def prompt_ids(runner: Runner, messages: list[dict[str, str]]) -> list[int]:
    return runner.session.format.rendered_ids(runner.render_chat(messages))


@SETTINGS
def test_twenty_turns_read_nothing_twice(
    long_folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner.load(long_folder, **settings)
    forwarded = count_tokens(runner, monkeypatch)
    messages = [said("system", "Be brief."), said("user", DOCUMENT)]
    read = runner.read_ahead(messages).usage
    assert read.input_tokens > 2000
    assert (read.cached_tokens, read.output_tokens) == (0, 0)
    own = len(
        runner.encode(
            "\n\nTurn 00: who signs?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        )
    )
    own += len(runner.encode("<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"))

    past, answers = read.input_tokens, list[tuple[int, list[int]]]()
    for turn in range(TURNS):
        question = f"Turn {turn:02}: who signs?"
        messages = (
            [*messages[:-1], said("user", f"{DOCUMENT}\n\n{question}")]
            if turn == 0
            else [*messages, said("user", question)]
        )
        before, ids = len(forwarded), prompt_ids(runner, messages)
        answer = runner.chat(messages, max_tokens=12, prompt_lookup=0)
        usage, output = answer.usage, answer.usage.output_tokens
        assert usage.input_tokens == len(ids)
        assert (
            usage.input_tokens - usage.cached_tokens <= own + 1
        )  # one more: the last token of an answer waits for the next turn
        assert usage.cached_tokens >= past - 1
        # every token went through the model once, counted where it goes in; the last of the answer
        # has not yet
        assert sum(forwarded[before:]) == usage.input_tokens - usage.cached_tokens + output - 1
        past = len(ids) + output
        answers.append((len(ids), output))
        messages.append(said("assistant", answer.text))
    everything = prompt_ids(runner, messages)
    assert sum(forwarded) < len(everything)

    # transformers' own model reads the whole transcript at once and would have written every token
    # of it
    if not settings:
        fresh = LlamaForCausalLM.from_pretrained(long_folder).eval()
        with torch.no_grad():
            written = fresh(torch.tensor([everything])).logits[0].argmax(-1).tolist()
        for start, length in answers:
            assert written[start - 1 : start - 1 + length] == everything[start : start + length]
    again = Runner.load(long_folder, **settings, prefix_caches=0).generate(ids, max_tokens=12)
    assert (again.text, again.cache.stored_tokens) == (answer.text, answer.cache.stored_tokens)


def count_tokens(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every forward call of the model from now on."""
    forwarded, forward = list[int](), runner.loaded.model.forward

    def counted(*args: Any, **options: Any) -> Any:
        forwarded.append(options["input_ids"].shape[1])
        return forward(*args, **options)

    monkeypatch.setattr(runner.loaded.model, "forward", counted)
    return forwarded


@pytest.fixture
def runner(tiny_folder: Path) -> Runner:
    return Runner.load(tiny_folder)


def test_a_trimmed_answer_and_one_that_is_not_cut_as_the_tokenizer_would(runner: Runner) -> None:
    format, messages = runner.session.format, [said("user", "Hi")]
    text = runner.render_chat(messages)
    odd = [
        *runner.encode(text),
        *runner.encode(" "),
        *(token for letter in "fox\n" for token in runner.encode(letter)),
    ]
    format.known.add(text, " fox\n", odd)
    ids = prompt_ids(
        runner, [*messages, said("assistant", " fox\n"), said("user", "And?")]
    )  # the template trims it
    assert ids[: len(odd)] == odd
    assert ids[len(odd)] == runner.encode("<|eot_id|>")[0]
    other = prompt_ids(runner, [*messages, said("assistant", "foxes"), said("user", "And?")])
    assert other[: len(odd)] != odd


def test_only_whole_messages_may_be_trimmed() -> None:
    import re

    known = TokenizationCache(re.compile("<end>"))
    known.add("A:", " yes\n", [1, 2])
    assert known.longest("A: yes\n<end>") == ([1, 2], 7)
    assert known.longest("A:yes<end>") == ([1, 2], 5)
    assert known.longest("A:yes, but<end>") is None
    known.add("A:", "", [1])
    assert known.longest("A:yes, but<end>") == ([1], 2)


def test_after_a_stop_string_the_answer_is_read_again(runner: Runner) -> None:
    messages = [said("user", "Who signs?")]
    whole = runner.chat(messages, max_tokens=12).text
    assert len(whole) > 4
    answer = Runner.load(runner.loaded.folder or "").chat(
        messages, max_tokens=12, stop=(whole[2:4],)
    )
    assert answer.text == whole[: whole.find(whole[2:4])]
    fresh, keeping = (
        Runner.load(runner.loaded.folder or "", prefix_caches=count) for count in (0, 2)
    )
    keeping.chat(messages, max_tokens=12, stop=(whole[2:4],))
    messages += [said("assistant", answer.text), said("user", "And?")]
    assert keeping.chat(messages, max_tokens=8).text == fresh.chat(messages, max_tokens=8).text


def test_a_message_is_read_ahead_as_far_as_it_came(tiny_folder: Path, long_text: str) -> None:
    runner, cancel = Runner.load(tiny_folder, chunk=50), threading.Event()
    stopped = runner.read_ahead(
        [said("user", long_text)], cancel=cancel, on_progress=lambda done, total: cancel.set()
    )
    assert stopped.finish_reason == "cancelled"
    rest = runner.read_ahead([said("user", long_text)])
    assert rest.usage.cached_tokens >= 50
    answer = runner.chat([said("user", f"{long_text}\n\nWho signs?")], max_tokens=6)
    assert answer.usage.cached_tokens == rest.usage.input_tokens
    assert (
        answer.text
        == Runner.load(tiny_folder, prefix_caches=0)
        .chat([said("user", f"{long_text}\n\nWho signs?")], max_tokens=6)
        .text
    )


@SETTINGS
def test_a_conversation_goes_on_from_its_file(
    tiny_folder: Path, tmp_path: Path, long_text: str, settings: dict[str, Any]
) -> None:
    first, second = Runner.load(tiny_folder, **settings), Runner.load(tiny_folder, **settings)
    messages = [said("user", f"{long_text}\n\nWho signs?")]
    assert first.remember(messages) is None
    messages.append(said("assistant", first.chat(messages, max_tokens=8).text))
    memory = first.remember(messages)
    assert memory is not None
    memory.save(tmp_path / "chat.namm")
    second.recall(second.open(tmp_path / "chat.namm"))
    messages.append(said("user", "And then?"))
    expected, found = first.chat(messages, max_tokens=8), second.chat(messages, max_tokens=8)
    assert found.text == expected.text
    assert found.usage == expected.usage
    assert found.usage.cached_tokens > 300


def test_only_a_conversation_of_the_same_settings_is_gone_on_with(
    tiny_folder: Path, long_text: str
) -> None:
    full, evicting = Runner.load(tiny_folder), Runner.load(tiny_folder, **EVICTING)
    full.read_ahead([said("user", long_text)])
    memory = full.remember([said("user", long_text)])
    assert memory is not None
    with pytest.raises(CacheError, match="other cache settings"):
        evicting.recall(memory)
    with pytest.raises(UsageError, match="that of a document"):
        full.recall(full.read(long_text))
