"""Prompts to token ids, with exactly one beginning-of-text token on every path, and the two halves
around a document.

Text is tokenised with the `tokenizers` library, which keeps no state, so any thread may use a
`PromptFormat`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TypeGuard

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from namm_llm.errors import ModelError, UsageError
from namm_llm.models.messages import Message, in_turn, plain_message, with_system
from namm_llm.models.template import ChatTemplate
from namm_llm.models.tokenization import TokenizationCache
from namm_llm.models.tools import Tool, describe_tools
from namm_llm.models.vision.parts import MARK
from namm_llm.models.vision.tokens import in_vocabulary
from namm_llm.models.vision.vision import Vision

Prompt = str | Sequence[Message] | Sequence[int]
Question = str | Sequence[Message]
ASK = "Answer briefly from the text above: {question}"
"""What follows a document whose question is a text, unless the model's tokenizer_config.json has an
`ask_prompt` of its own, the form that it was trained with. Chosen by measurement: see docs/log."""
_DOCUMENT, _QUESTION = "DOCUMENTxGOESxHERE", "QUESTIONxGOESxHERE"
# around a document and a question, for a model without a chat template
_PLAIN = ("", "\nQuestion: ", "\nAnswer:")


class PromptFormat:
    """How one tokenizer wants its prompts."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        backend: Tokenizer,
        model_id: str,
        vision: Vision | None = None,
    ) -> None:
        image = None if vision is None else backend.id_to_token(vision.token_id)
        self.template = ChatTemplate(tokenizer, model_id, image)
        self._backend = backend
        self._vision = vision
        self._model_id = model_id
        self._bos = _bos(tokenizer, backend)
        self._ask = str(tokenizer.init_kwargs.get("ask_prompt", ASK))
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = re.compile("|".join(map(re.escape, sorted(special)))) if special else None
        self.known = TokenizationCache(self._special)

    # -- text --------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """The ids of the text and nothing else; where it holds marks, of their pictures."""
        if self._vision is not None and (mark := MARK.search(text)) is not None:
            found, rest = self._vision.find(mark[0]), self.encode(text[mark.end() :])
            return [*self.encode(text[: mark.start()]), *(found.ids if found else ()), *rest]
        try:
            text.encode()  # the tokenizer does not say what is wrong
            return self._backend.encode(text, add_special_tokens=False).ids
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text holds half a character at position {error.start}; decode it as UTF-8 "
                "first."
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return self._backend.decode(in_vocabulary(ids), skip_special_tokens=True)

    def prompt(self, prompt: Prompt, tools: Sequence[Tool] = ()) -> list[int]:
        """The ids of a prompt: text as it stands, messages through the chat template, ids
        unchanged. tools: for messages.

        Raises UsageError for an empty prompt, or one of another kind.
        """
        is_text = isinstance(prompt, str)
        items = list(prompt) if isinstance(prompt, Sequence) and not is_text else []
        if tools and (is_text or not all(isinstance(item, Mapping) for item in items)):
            raise UsageError(
                "tools need messages; a text or token ids go to the model as they stand."
            )
        if isinstance(prompt, str):
            ids = self._begin(self.encode(prompt))
        elif items and all(isinstance(item, int) for item in items):
            ids = [int(item) for item in items if isinstance(item, int)]
        elif isinstance(prompt, Sequence) and all(isinstance(item, Mapping) for item in items):
            messages = [item for item in items if isinstance(item, Mapping)]
            ids = self.rendered_ids(self.template.render(messages, tools))
        else:
            raise UsageError(
                "a prompt is a text, a list of messages or a list of token ids, not "
                f"{type(prompt).__name__}."
            )
        if not ids:
            raise UsageError("the prompt is empty; there is nothing to go on from.")
        return ids

    def rendered_ids(self, text: str) -> list[int]:
        """The ids of what `render` gave. A beginning that the model has read or written already
        keeps its ids (see `TokenizationCache`).
        """
        ids, length = self.known.longest(text) or ([], 0)
        return self._begin(ids + self.encode(text[length:]))

    @staticmethod
    def is_conversation(prompt: Prompt) -> TypeGuard[Sequence[Message]]:
        """Whether a prompt is messages."""
        return (
            not isinstance(prompt, str)
            and len(prompt) > 0
            and all(isinstance(item, Mapping) for item in prompt)
        )

    def _begin(self, ids: list[int]) -> list[int]:
        return ids if self._bos is None or ids[:1] == [self._bos] else [self._bos, *ids]

    # -- documents ---------------------------------------------------------------------------------

    def document(self, text: str) -> list[int]:
        """What is read once: the beginning of a user's message, and the document as its content."""
        return self._begin(self._around(self._frame[0], text, ""))

    def document_starts(self, text: str) -> list[int]:
        """The character of `text` where each token of `document(text)` begins, in order; -1 for
        those that stand before it.
        """
        frame = self._frame[0]
        parts = self._apart(text)
        parts = [frame + text] if len(parts) == 1 else [frame, *parts]
        starts, before = (
            [-1] * (len(self._begin(self.encode(parts[0]))) - len(self.encode(parts[0]))),
            -len(frame),
        )
        for part in parts:
            for start, stop in self._backend.encode(part, add_special_tokens=False).offsets:
                starts.append(max(before + start, 0) if before + stop > 0 else -1)
            before += len(part)
        return list(accumulate(starts, max))

    def token_starts(self, text: str) -> list[int]:
        """The character where each token of a text begins, in order."""
        offsets = self._backend.encode(text, add_special_tokens=False).offsets
        return list(accumulate((start for start, _ in offsets), max))

    def more(self, text: str) -> list[int]:
        """What is read behind a document: more of its text.

        The ids are those of one text with it, if it begins with a word behind a newline, or with a
        space behind a word.
        """
        first, *rest = self._apart(text)
        # some tokenizers put a space before whatever they are given, so they are given something
        # before it
        before = "a" if first[:1].isspace() else "a\n"
        known, ids = self.encode(before), self.encode(before + first)
        ids = ids[len(known) :] if ids[: len(known)] == known else self.encode(first)
        return [*ids, *(token for part in rest for token in self.encode(part))]

    def question(self, question: Question, tools: Sequence[Tool] = ()) -> list[int]:
        """What follows a document: the question, the end of the message, the beginning of the
        answer.

        A question that is a text is put as `ASK` says. A conversation may be given instead, whose
        words stay as they are. The document begins its first message, which must be the user's;
        what the system says comes behind the document.
        """
        if not isinstance(question, str):
            return self._conversation(question, tools)
        if tools:
            raise UsageError("tools need messages; ask with a list of them.")
        if not question.strip():
            raise UsageError("the question is empty; ask something about the document.")
        return self._around(self._frame[1], question, self._frame[2])

    def request(self, text: str) -> list[int]:
        """As `question`, in these words alone."""
        if not self.template.is_there:
            return self.encode(f"\n\n{text}\n")
        return self._conversation([{"role": "user", "content": text}], ())

    def _conversation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        plain = [plain_message(message) for message in messages]
        if tools:
            plain = with_system(plain, describe_tools(tools))
        plain = in_turn(plain)
        if not plain or plain[0]["role"] != "user":
            raise UsageError("a conversation about a document begins with a message of the user.")
        plain[0]["content"] = f"{_DOCUMENT}\n\n{plain[0]['content']}"
        _, found, rest = self.template.render(plain).partition(_DOCUMENT)
        if not found:
            raise ModelError(
                f"the chat template of {self._model_id} does not show the first message, so it "
                "cannot follow a document."
            )
        return self.encode(rest)

    @property
    def answer_stop(self) -> tuple[str, ...]:
        """Where the answer to a question that is a text ends besides: without a chat template a
        model goes on with questions of its own.
        """
        return () if self.template.is_there else (_PLAIN[1].rstrip(),)

    @cached_property
    def head_tokens(self) -> int:
        """Tokens before the document."""
        return len(self._begin(self.encode(self._frame[0])))

    @cached_property
    def _frame(self) -> tuple[str, str, str]:
        """The texts before the document, between document and question, and after the question."""
        if not self.template.is_there:
            return _PLAIN
        asked = self._ask.replace("{question}", _QUESTION)
        rendered = self.template.render([{"role": "user", "content": f"{_DOCUMENT}\n\n{asked}"}])
        head, found, rest = rendered.partition(_DOCUMENT)
        middle, found_too, tail = rest.partition(_QUESTION)
        return (head, middle, tail) if found and found_too else _PLAIN

    def _around(self, before: str, text: str, after: str) -> list[int]:
        """Ids of `before + text + after`, where `text` cannot smuggle in special tokens by writing
        their names.
        """
        parts = self._apart(text)
        if len(parts) == 1:
            return self.encode(before + text + after)
        return [token for part in (before, *parts, after) for token in self.encode(part)]

    def _apart(self, text: str) -> list[str]:
        """The text, cut within each special token's name."""
        if self._special is None:
            return [text]
        cuts = [0, *(match.start() + 1 for match in self._special.finditer(text)), len(text)]
        return [text[start:stop] for start, stop in pairwise(cuts)]


def _bos(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> int | None:
    """The token that every text begins with, if the model has one."""
    bos = tokenizer.bos_token_id
    if not isinstance(bos, int) or backend.encode("").ids[:1] == [bos]:
        return bos if isinstance(bos, int) else None
    # some models name one token for both ends (GPT-2), and some say that they were trained without
    # it
    unused = bos == tokenizer.eos_token_id or tokenizer.init_kwargs.get("add_bos_token") is False
    return None if unused else bos
