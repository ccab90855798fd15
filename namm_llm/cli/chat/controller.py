"""A chat while it goes on: its conversation, the runner that answers, the session that saves it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namm_llm.cli.chat.conversation import Conversation, File
from namm_llm.cli.chat.sessions import CACHES_NBYTES, Session
from namm_llm.cli.options import Settings
from namm_llm.cli.output import answer, grouped, interruptible, size, tell
from namm_llm.cli.progress import ProgressBar
from namm_llm.errors import CacheError, NammError

if TYPE_CHECKING:
    from namm_llm.cache import CacheStats
    from namm_llm.runner import Runner

_ALWAYS_NBYTES = 64_000_000  # a cache up to this size is saved after every answer ...
_GROWN = 8  # ... a larger one when it has grown by an eighth, and in the end


class Chat:
    """over: whether the user wants to leave. begun: what the next message begins with. stats: of
    the cache after the last answer.

    runner: set once the model is loaded. session: None if nothing is saved. in_pipe: nobody is
    there to go on after an error.
    """

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        session: Session | None,
        *,
        in_pipe: bool,
    ) -> None:
        self.conversation = conversation
        self.settings = settings
        self.session = session
        self.shows_stats = settings.stats
        self.over = False
        self.begun = ""
        self.cache: CacheStats | None = None
        self._in_pipe = in_pipe
        self._runner: Runner | None = None
        self._saved_tokens = 0
        self._cannot_save = False

    @property
    def runner(self) -> Runner:
        """What answers."""
        assert self._runner is not None, "the model is loaded before the first line is taken"
        return self._runner

    def begin(self, runner: Runner) -> None:
        """Take a runner. What the session's cache holds need not be read again."""
        self._runner = runner
        runner.render_chat(
            [{"role": "user", "content": "Hi"}]
        )  # a model that takes no messages is refused now
        if self.session is None or not (self.conversation.turns or self.conversation.files):
            return
        try:
            if not self.session.cache_path.exists():
                raise CacheError("its cache was not saved.")
            memory = runner.open(self.session.cache_path)
            runner.recall(memory)
        except NammError as error:
            tell(f"The conversation is read again with the next message: {error}")
        else:
            self.cache = memory.cache.stats()
            self._saved_tokens = self.cache.seen_tokens

    # -- messages and files ------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Add a message and print the answer to it."""
        self.conversation.say(text)
        self._answer(None)

    def retry(self) -> bool:
        """Print another answer to the last message; false if there is none. If that fails, the
        answer before stays.
        """
        before = self.conversation.unreply()
        if self.conversation.is_unanswered:
            self._answer(before)
            return True
        return False

    def _answer(self, before: str | None) -> None:
        """The answer to the last message. before: the one that comes back if there is none; without
        one the message is taken back.
        """
        self.save()  # the message is safe from here on
        params = self.conversation.params
        messages = self.conversation.messages
        try:
            result = answer(
                lambda cancel, read: self.runner.stream(
                    messages, params, cancel=cancel, on_progress=read
                ),
                as_json=self.settings.as_json,
                stats=self.shows_stats,
                params=params,
                more="--max-tokens" if self._in_pipe else "/set max_tokens",
            )
        except (NammError, KeyboardInterrupt):
            self._give_up(before)
            raise
        stopped = result.finish_reason == "cancelled"
        if stopped and not result.text:
            self._give_up(before)
        else:
            self.conversation.reply(result.text)
            self.cache = result.cache
        self.save()
        if not stopped:
            self._save_cache()
        elif self._in_pipe:
            raise KeyboardInterrupt
        else:
            tell("(stopped; /undo takes it back)" if result.text else "(stopped)")

    def _give_up(self, before: str | None) -> None:
        if before is not None:
            self.conversation.reply(before)
        else:
            self.conversation.withdraw()
        self.save()

    def read(self, file: File) -> str:
        """Put a file before the next message, and read it now. Returns what to say of it."""
        files = [*self.conversation.files, file]
        with interruptible() as cancel, ProgressBar() as bar:
            messages = self.conversation.messages_with(files)
            result = self.runner.read_ahead(messages, cancel=cancel, on_progress=bar.update)
        if result.finish_reason == "cancelled":
            if self._in_pipe:
                raise KeyboardInterrupt
            return f"(stopped; {file.name} is not part of the conversation)"
        self.conversation.files, self.cache = files, result.cache
        self.save()
        self._save_cache()
        read = grouped(result.usage.input_tokens - result.usage.cached_tokens)
        seconds = f" in {result.timings.prefill_seconds:.1f} s" if self.shows_stats else ""
        return f"{file.name} is read ({read} tokens{seconds}) and goes before your next message."

    # -- saving ------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """What a file of this chat holds."""
        from namm_llm.models.locate import has_own_name

        # the model too if nobody named it: a better one may be pulled before the chat goes on
        options = {**self.settings.runner, "model": self.runner.model_id}
        for name in ("model", "namm"):
            path = Path(str(options.get(name, "")))
            if name in options and path.exists() and not has_own_name(str(path)):
                options[name] = str(path.resolve())  # the chat may be continued from another folder
        return {"options": options, "conversation": self.conversation.to_dict()}

    def save(self) -> None:
        """Write what was said."""
        if self.session is not None:
            self._trying(partial(self.session.save, self.record()))

    def leave(self) -> None:
        """Save what is left to save."""
        if self.session is None:
            return
        if self.conversation.turns or self.conversation.files:
            self._save_cache(leaving=True)
            if not self._in_pipe:
                tell(f"Saved as {self.session.name}; namm-llm chat -c goes on from here.")
        self.session.close()

    def start_over(self, conversation: Conversation | None = None) -> str | None:
        """Go on with another conversation, or with none. What was said so far stays in its session,
        whose name is returned.
        """
        before = self.session if self.conversation.turns else None
        if before is not None:
            self._save_cache(leaving=True)
            before.close()
            self.session = Session.new()
        self.conversation = conversation or Conversation(
            self.conversation.params, self.conversation.system
        )
        self.cache, self._saved_tokens = None, 0
        if before is None or conversation is not None:
            self.save()
        return before.name if before is not None else None

    def _save_cache(self, *, leaving: bool = False) -> None:
        """Write the cache, if that is worth it."""
        if self.session is None or self._cannot_save:
            return
        files = self.conversation.files
        memory = self.runner.remember(
            self.conversation.messages_with(files) if files else self.conversation.messages
        )
        if memory is None:
            return
        stats = memory.cache.stats()
        if stats.nbytes > CACHES_NBYTES:
            self._cannot_save = True
            tell(
                f"The cache ({size(stats.nbytes)}) is too large to be saved; -c will read "
                "the conversation again."
            )
        elif stats.seen_tokens != self._saved_tokens and (
            leaving
            or stats.nbytes <= _ALWAYS_NBYTES
            or abs(stats.seen_tokens - self._saved_tokens) * _GROWN > self._saved_tokens
        ):
            self._saved_tokens = stats.seen_tokens
            self._trying(partial(memory.save, self.session.cache_path))
            self.session.drop_old_caches()

    def _trying(self, save: partial[None]) -> None:
        """Saves; a disk or a cache that refuses ends the saving and not the chat."""
        try:
            save()
        except NammError as error:
            if not self._cannot_save:
                tell(f"Warning: {error}")
            self._cannot_save = True

    # -- what it is --------------------------------------------------------------------------------

    def describe_model(self) -> str:
        """The model and the settings of its cache."""
        runner = self.runner
        window = runner.context_window
        positions = f"{grouped(window)} positions" if window else "any number of positions"
        weights = f"{size(runner.loaded.footprint_bytes)} of weights, {positions}"
        loaded = runner.loaded
        dtype = str(loaded.model.dtype).removeprefix("torch.")
        kind = ", ".join(filter(None, (loaded.quantization, dtype)))
        return f"{runner.model_id} ({kind})\n{weights}\nCache: {runner.config.describe()}"

    def describe_cache(self) -> str:
        """What the cache holds of the conversation."""
        if self.cache is None:
            return "Nothing is read yet."
        cache = self.cache
        room = f" of {grouped(self.runner.context_window)}" if self.runner.context_window else ""
        evicted = cache.stored_tokens < cache.seen_tokens
        full = f" (all of them: {size(cache.full_nbytes)})" if evicted else ""
        return (
            f"Read: {grouped(cache.seen_tokens)}{room} tokens\n"
            f"Kept: {grouped(cache.stored_tokens)} tokens for each head "
            f"({cache.kept_fraction:.0%}), {size(cache.nbytes)}{full}\n"
            f"Chosen by: {cache.policy}, in {grouped(cache.eviction_steps)} eviction steps"
        )

    def describe_params(self) -> dict[str, Any]:
        """The sampling parameters."""
        return asdict(self.conversation.params)
