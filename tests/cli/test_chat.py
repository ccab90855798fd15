"""The chat loop and its slash commands, in a pipe and in a real terminal."""

from __future__ import annotations

import json

import pytest

from namm_llm.cli.conversation import COMMANDS, Conversation
from namm_llm.errors import ContextError, UsageError
from namm_llm.runner.sampling import SamplingParams
from tests.cli.conftest import FakeCommandLine


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(SamplingParams())


def test_every_line_of_a_pipe_is_a_message(cli: FakeCommandLine) -> None:
    done = cli(["Hello.", "Fine."], "chat", "--system", "Be brief.", stdin="Hi\n\nHow are you?\n")
    assert (done.stdout, done.stderr, done.exit_code) == ("Hello.\nFine.\n", "", 0)
    start = [said("system", "Be brief."), said("user", "Hi")]
    assert cli.runner.asked == [start, [*start, said("assistant", "Hello."), said("user", "How are you?")]]


def test_json(cli: FakeCommandLine) -> None:
    done = cli(["Hello.", "Fine."], "chat", "--json", stdin="Hi\nHow are you?")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["Hello.", "Fine."]


def test_an_error_ends_a_pipe(cli: FakeCommandLine) -> None:
    done = cli([ContextError("too long"), "never"], "chat", stdin="Hi\nAgain\n")
    assert (done.stdout, done.stderr, done.exit_code) == ("", "Error: too long\n", 1)


def test_unknown_commands_are_not_sent_to_the_model(cli: FakeCommandLine) -> None:
    done = cli([], "chat", stdin="/frobnicate now\n")
    message = "there is no command /frobnicate: /help lists them; // begins a message that starts with a slash"
    assert (done.stdout, done.stderr, done.exit_code) == ("", f"Error: {message}\n", 2)
    assert cli.runner.asked == []


def test_exit_ends_and_clear_forgets(cli: FakeCommandLine) -> None:
    done = cli(["Hello.", "Hello."], "chat", stdin="Hi\n/clear\nHi\n/exit\nnever\n")
    assert (done.stdout, done.stderr) == ("Hello.\nHello.\n", "Forgotten.\nBye.\n")
    assert cli.runner.asked == [[said("user", "Hi")]] * 2


def test_a_doubled_slash_is_a_message(cli: FakeCommandLine) -> None:
    cli(["A folder."], "chat", stdin="//etc is what?\n")
    assert cli.runner.asked == [[said("user", "/etc is what?")]]


def test_a_file_goes_before_the_next_message_only(cli: FakeCommandLine, handbook: str) -> None:
    done = cli(["Green.", "Yes."], "chat", stdin=f"/file {handbook}\nWhat colour?\nSure?\n")
    assert done.stderr == f"{handbook} goes before your next message (19 characters).\n"
    first = said("user", "The lamp is green.\n\n\nWhat colour?")
    assert cli.runner.asked == [[first], [first, said("assistant", "Green."), said("user", "Sure?")]]


def test_set_changes_how_answers_are_sampled(cli: FakeCommandLine) -> None:
    done = cli(["Hi."], "chat", stdin='/set temperature 0.7\n/set stop ["END"]\n/set seed 3\nHi\n')
    assert done.stderr == 'temperature is 0.7.\nstop is ["END"].\nseed is 3.\n'
    assert cli.runner.params == [SamplingParams(temperature=0.7, stop=("END",), seed=3)]


@pytest.mark.parametrize("line", ["/set heat 1", "/set temperature", "/set temperature hot", "/set top_p 7", "/file"])
def test_bad_settings_are_refused_and_change_nothing(conversation: Conversation, line: str) -> None:
    with pytest.raises(UsageError):
        conversation.take(line)
    assert conversation.params == SamplingParams()


def test_set_alone_and_help_show_what_there_is(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    assert not conversation.take("/set")
    assert not conversation.take("/help")
    shown = capsys.readouterr().err
    assert "temperature         0.0\n" in shown
    assert all(f"/{name}" in shown for name in COMMANDS)


def test_a_message_without_an_answer_is_taken_back(conversation: Conversation) -> None:
    assert conversation.take("Hi")
    conversation.withdraw()
    assert conversation.messages == []
    assert conversation.take("Hi")
    conversation.reply("Hello.")
    conversation.withdraw()
    assert conversation.messages == [said("user", "Hi"), said("assistant", "Hello.")]


def test_system_and_stats(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("/system Be brief.", "/stats"):
        assert not conversation.take(line)
    assert conversation.messages == [said("system", "Be brief.")]
    assert conversation.stats
    conversation.take("/system")
    assert conversation.messages == []
    assert capsys.readouterr().err == "System message set.\nStatistics on.\nNo system message.\n"
