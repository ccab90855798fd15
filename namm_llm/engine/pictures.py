"""`PictureEncoder`: pictures of messages and documents on their way into one model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from namm_llm.engine.worker import Worker
from namm_llm.errors import UsageError
from namm_llm.models.loading import LoadedModel
from namm_llm.models.messages import Message
from namm_llm.models.prompt import Prompt, PromptFormat
from namm_llm.models.tools import Tool
from namm_llm.models.vision.parts import has_pictures, marked_messages
from namm_llm.models.vision.picture import Picture
from namm_llm.models.vision.tokens import is_picture
from namm_llm.models.vision.vision import Encoded

Held = tuple[Encoded, ...]


class PictureEncoder:
    """Encodes pictures in the thread that owns the model. Any number of threads may use it."""

    def __init__(self, loaded: LoadedModel, format: PromptFormat, worker: Worker) -> None:
        self._loaded = loaded
        self._format = format
        self._worker = worker

    def encode(self, pictures: Sequence[Picture]) -> Held:
        """Pictures as the decoder reads them; hold them until it has. UsageError if the model reads
        text only.
        """
        vision = self._loaded.vision
        if not pictures:
            return ()
        if vision is None:
            raise UsageError(
                f"{self._loaded.model_id} reads text only, and this holds a picture; use a model "
                "that sees, such as LLaVA or SmolVLM."
            )
        return self._worker.call(partial(vision.encode, pictures))

    def seen(self, messages: Sequence[Message]) -> tuple[Sequence[Message], Held]:
        """The messages with marks in the place of pictures, and these."""
        if self._loaded.vision is None or not has_pictures(messages):
            return messages, ()
        marked, pictures = marked_messages(messages)
        return marked, self.encode(pictures)

    def token_ids(self, prompt: Prompt, tools: Sequence[Tool] = ()) -> list[int]:
        """The ids of a prompt as the model reads it; a picture's are the token that stands for it
        in chat templates.
        """
        if self._loaded.vision is None or not self._format.is_conversation(prompt):
            return self._format.prompt(prompt, tools)
        seen, held = self.seen(prompt)
        ids, own = self._format.prompt(seen, tools), self._loaded.vision.token_id
        del held  # marks are looked up until here
        return [own if is_picture(id) else id for id in ids]
