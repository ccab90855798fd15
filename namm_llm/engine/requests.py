"""`Requests`: prompts and questions as requests that the engine can answer, checked where they come
in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from namm_llm.cache import ManagedCache
from namm_llm.config import SamplingParams
from namm_llm.engine.engine import Request
from namm_llm.errors import ContextError, UsageError
from namm_llm.models.loading import LoadedModel
from namm_llm.models.prompt import Prompt, PromptFormat
from namm_llm.models.tools import Tool


class Requests:
    """For one model. params and overrides: as of `Runner.stream`."""

    def __init__(self, loaded: LoadedModel, prompts: PromptFormat) -> None:
        self._loaded = loaded
        self._format = prompts

    def of_prompt(
        self,
        prompt: Prompt,
        params: SamplingParams | None,
        overrides: dict[str, Any],
        tools: Sequence[Tool] = (),
    ) -> Request:
        """A text to go on with, or a conversation to answer."""
        if not self._format.is_conversation(prompt):
            return self.of_ids(self._format.prompt(prompt, tools), params, overrides)
        text = self._format.render(prompt, tools)
        return self.of_ids(self._format.rendered_ids(text), params, overrides, text=text)

    def of_ids(
        self,
        ids: list[int],
        params: SamplingParams | None = None,
        overrides: dict[str, Any] | None = None,
        memory: ManagedCache | None = None,
        text: str = "",
    ) -> Request:
        """Ids to read, behind what `memory` holds. text: what they were made of, if that was
        messages.
        """
        params = (params or SamplingParams()).override(overrides or {})
        constraint = self._loaded.grammars.constraint(params) if params.constrained else None
        request = Request(ids, params, memory, constraint, text=text)
        if not 0 <= min(ids) <= max(ids) < self._loaded.vocabulary:
            raise UsageError(
                f"token ids go from 0 to {self._loaded.vocabulary - 1} with {self._loaded.model_id}, not to {max(ids)}."
            )
        self.check_fits(len(ids), request.memory_tokens, "prompt" if memory is None else "question")
        return request

    def check_fits(self, tokens: int, before: int, what: str) -> None:
        """Raises ContextError if `tokens` behind `before` others leave no trained position for an
        answer.
        """
        positions = self._loaded.positions
        if positions is None or before + tokens < positions:
            return
        sofar = f" after the {before} of the document" if before else ""
        raise ContextError(
            f"the {what} has {tokens} tokens{sofar}, but {self._loaded.model_id} was trained on {positions} positions, one of them for the "
            f"answer: shorten the {what}, or use a model with more positions. (A budget saves memory, not positions.)"
        )
