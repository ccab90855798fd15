"""`NammSaver`: a LangGraph checkpointer that also keeps the cache of each thread, so that a thread
resumes after a restart without reading its messages again.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from namm_integrations.threads import call_in_thread

from langchain_namm.chat import ChatNamm
from langchain_namm.messages import to_openai
from namm_llm import NammError


class NammSaver(BaseCheckpointSaver[Any]):
    """Keeps what another checkpointer keeps, and beside it one file for the cache of each thread.

    saver: keeps the checkpoints. chat: the model whose caches they are, with at least one of
    `prefix_caches`. folder: where the caches go; `delete_thread` removes that of a thread.
    system_prompt, tools: what the agent puts before the messages of its state, if it does. key:
    where the state has its messages. A cache that does not belong to the model and its settings is
    warned of and not used: the thread is then read again.
    """

    def __init__(
        self,
        saver: BaseCheckpointSaver[Any],
        chat: ChatNamm,
        folder: str | os.PathLike[str],
        *,
        system_prompt: str | None = None,
        tools: Sequence[Any] = (),
        key: str = "messages",
    ) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver
        self._chat = chat
        self._folder = Path(folder)
        self._before = [{"role": "system", "content": system_prompt}] if system_prompt else []
        self._tools = [convert_to_openai_tool(tool) for tool in tools]
        self._key = key
        self._recalled: set[str] = set()

    # -- caches ------------------------------------------------------------------------------------

    def _remember(self, config: Any, checkpoint: Any) -> None:
        """Save the cache when an answer is there."""
        messages = checkpoint["channel_values"].get(self._key) or []
        last = messages[-1] if messages else None
        if not isinstance(last, AIMessage) or last.tool_calls:
            return
        told = [*self._before, *to_openai(messages)]
        memory = self._chat._call().runner.remember(told, self._tools)
        if memory is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            memory.save(self._file(config))
        self._recalled.add(_thread(config))

    def _recall(self, config: Any) -> None:
        """Go on from the saved cache, the first time that this process sees the thread."""
        thread, file = _thread(config), self._file(config)
        if thread in self._recalled or not file.is_file():
            return
        self._recalled.add(thread)
        runner = self._chat._call().runner
        try:
            runner.recall(runner.open(file))
        except NammError as error:
            warnings.warn(f"thread {thread} is read again: {error}", UserWarning, stacklevel=3)

    def _file(self, config: Any) -> Path:
        name = hashlib.sha256(_thread(config).encode()).hexdigest()[:16]
        return self._folder / f"{name}.namm"

    # -- checkpoints -------------------------------------------------------------------------------

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        found = self.saver.get_tuple(config)
        if found is not None:
            self._recall(config)
        return found

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        found = await self.saver.aget_tuple(config)
        if found is not None:
            await call_in_thread(lambda _: self._recall(config))
        return found

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        kept = self.saver.put(config, checkpoint, metadata, new_versions)
        self._remember(config, checkpoint)
        return kept

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        kept = await self.saver.aput(config, checkpoint, metadata, new_versions)
        await call_in_thread(lambda _: self._remember(config, checkpoint))
        return kept

    def delete_thread(self, thread_id: str) -> None:
        self.saver.delete_thread(thread_id)
        self._forget(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.saver.adelete_thread(thread_id)
        self._forget(thread_id)

    def _forget(self, thread_id: str) -> None:
        self._file({"configurable": {"thread_id": thread_id}}).unlink(missing_ok=True)
        self._recalled.discard(thread_id)

    # -- what the other checkpointer does alone ----------------------------------------------------

    @property
    def config_specs(self) -> Any:
        return self.saver.config_specs

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.saver.get_next_version(current, channel)

    def list(self, config: Any, **options: Any) -> Iterator[CheckpointTuple]:
        return self.saver.list(config, **options)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[CheckpointTuple]:
        async for found in self.saver.alist(config, **options):
            yield found

    def put_writes(self, *given: Any, **options: Any) -> None:
        self.saver.put_writes(*given, **options)

    async def aput_writes(self, *given: Any, **options: Any) -> None:
        await self.saver.aput_writes(*given, **options)

    def get_delta_channel_history(self, *given: Any, **options: Any) -> Any:
        return self.saver.get_delta_channel_history(*given, **options)

    async def aget_delta_channel_history(self, *given: Any, **options: Any) -> Any:
        return await self.saver.aget_delta_channel_history(*given, **options)


def _thread(config: Any) -> str:
    return str(config["configurable"]["thread_id"])
