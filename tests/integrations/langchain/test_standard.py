"""LangChain's own suites for chat models, offline on random weights: 46 pass, 6 need a trained
model (tests/real/test_langchain.py has one), 8 are for what we do not have.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_namm import ChatNamm
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from tests.tiny import save_tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
needs_training = pytest.mark.xfail(
    reason="random weights cannot pick an argument; a trained model can"
)
both_versions = pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)


class Settings:
    folder: str
    other: str

    @pytest.fixture(autouse=True, scope="class")
    @staticmethod
    def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
        root = tmp_path_factory.mktemp("standard")
        Settings.folder = str(save_tiny(root / "a", positions=16384))
        Settings.other = str(save_tiny(root / "b", positions=16384))

    @property
    def chat_model_class(self) -> type[ChatNamm]:
        return ChatNamm

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": Settings.folder}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return Settings.other


class TestUnit(Settings, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"NAMM_MODEL": Settings.folder}, {}, {"model": Settings.folder}


class TestIntegration(Settings, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": Settings.folder, "max_tokens": 64}

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

    @both_versions
    @needs_training
    def test_tool_calling(self, model: Any) -> None:
        super().test_tool_calling(model)

    @needs_training
    async def test_tool_calling_async(self, model: Any) -> None:
        await super().test_tool_calling_async(model)

    @both_versions
    @needs_training
    def test_agent_loop(self, model: Any) -> None:
        super().test_agent_loop(model)

    @needs_training
    def test_unicode_tool_call_integration(self, model: Any) -> None:
        super().test_unicode_tool_call_integration(model)
