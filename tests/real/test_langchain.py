"""LangChain's own integration suite for chat models, on a model that can answer: the tests that
fail on random weights included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_namm import ChatNamm
from langchain_tests.integration_tests import ChatModelIntegrationTests

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]


class TestIntegration(ChatModelIntegrationTests):
    model_path: str

    @pytest.fixture(autouse=True, scope="class")
    @staticmethod
    def path(qwen: Path) -> None:
        TestIntegration.model_path = str(qwen)

    @property
    def chat_model_class(self) -> type[ChatNamm]:
        return ChatNamm

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.model_path, "max_tokens": 32, "policy": "full"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "namm-tiny"

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        chat = ChatNamm(**self.chat_model_params)
        chat.invoke("The quick brown fox")
        if not stream:
            return chat.invoke("The quick brown fox")
        chunks = list(chat.stream("The quick brown fox"))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return whole
