"""A conversation: turns, files, sampling parameters. Knows no model, no terminal and no disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namm_llm.config import SamplingParams

_GAP = "\n\n"
_SHOWN = 60  # characters of a message where only its beginning is shown


@dataclass(frozen=True)
class File:
    """A document in the conversation, or several that were given together."""

    name: str
    text: str


@dataclass(frozen=True)
class Turn:
    """What the user or the assistant said once. files: what stands before the user's words."""

    role: str
    text: str
    files: tuple[File, ...] = ()

    @property
    def message(self) -> dict[str, str]:
        """What the model gets."""
        return {
            "role": self.role,
            "content": _GAP.join([*(file.text for file in self.files), self.text]),
        }

    def __str__(self) -> str:
        names = "".join(f"[{file.name}, {len(file.text):,} characters]\n" for file in self.files)
        return f"{self.role.capitalize()}: {names}{self.text}"


class Conversation:
    """Turns, the files that will stand before the next message, and how answers are sampled."""

    def __init__(self, params: SamplingParams, system: str = "") -> None:
        self.params = params
        self.system = system
        self.turns: list[Turn] = []
        self.files: list[File] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        """What was said, for the model."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *(turn.message for turn in self.turns)]

    def messages_with(self, files: Sequence[File]) -> list[dict[str, str]]:
        """The same with the beginning of a message that is not written yet: files."""
        return [*self.messages, {"role": "user", "content": _GAP.join(file.text for file in files)}]

    @property
    def is_unanswered(self) -> bool:
        """Whether the last message has no answer."""
        return bool(self.turns) and self.turns[-1].role == "user"

    def say(self, text: str) -> None:
        """The user's next message, behind the files that wait for it. An earlier one without an
        answer becomes part of it.
        """
        earlier = self.withdraw() if self.is_unanswered else ""
        self.turns.append(
            Turn("user", f"{earlier}{_GAP}{text}" if earlier else text, tuple(self.files))
        )
        self.files = []

    def reply(self, text: str) -> None:
        """The answer."""
        self.turns.append(Turn("assistant", text))

    def withdraw(self) -> str:
        """Take back the last message, which has no answer, and return it; its files wait for the
        next one.
        """
        assert self.is_unanswered
        turn = self.turns.pop()
        self.files = [*turn.files, *self.files]
        return turn.text

    def unreply(self) -> str | None:
        """Take back the last answer and return it; None if there is none."""
        return None if not self.turns or self.is_unanswered else self.turns.pop().text

    def undo(self) -> str | None:
        """Take back the last message with its answer and return it, None if there is none. Its
        files wait for the next one.
        """
        self.unreply()
        return self.withdraw() if self.turns else None

    # -- as plain values ---------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "system": self.system,
            "params": dataclasses.asdict(self.params),
            "turns": [dataclasses.asdict(turn) for turn in self.turns],
            "files": [dataclasses.asdict(file) for file in self.files],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], params: SamplingParams) -> Conversation:
        """The conversation that `to_dict` was taken of. params: any; those of the conversation
        replace them. KeyError, TypeError or UsageError if the values are not such ones.
        """
        conversation = cls(params.override(values["params"]), str(values["system"]))
        for turn in values["turns"]:
            files = tuple(File(**file) for file in turn["files"])
            conversation.turns.append(Turn(turn["role"], turn["text"], files))
        conversation.files = [File(**file) for file in values["files"]]
        return conversation


def beginning(text: str) -> str:
    """The first words of a message, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
