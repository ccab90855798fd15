"""The tests of LangChain's integration suite that random weights cannot pass, on a trained model.

The others are in `tests/integrations/langchain/test_standard.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_namm import ChatNamm
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests.chat_models import ChatModelTests

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]


class TestTrained(ChatModelTests):
    path: str

    @pytest.fixture(autouse=True, scope="class")
    @staticmethod
    def file(qwen: Path) -> None:
        TestTrained.path = str(qwen)

    @property
    def chat_model_class(self) -> type[ChatNamm]:
        return ChatNamm

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # a busy machine may need more than the 60 seconds of the suite
        return {"model": self.path, "max_tokens": 48, "policy": "full", "timeout": 600}

    test_tool_calling = ChatModelIntegrationTests.test_tool_calling
    test_tool_calling_async = ChatModelIntegrationTests.test_tool_calling_async
    test_agent_loop = ChatModelIntegrationTests.test_agent_loop
    test_unicode_tool_call = ChatModelIntegrationTests.test_unicode_tool_call_integration
