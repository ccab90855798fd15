"""The same suites for LangChain's own local chat model, `ChatHuggingFace` on a
`HuggingFacePipeline`, to compare with.

Not part of the tests. pip install langchain-huggingface; python -m pytest
tests/integrations/langchain/upstream.py -W default
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from transformers import pipeline

from tests.tiny import save_tiny


class Settings:
    pipe: Any

    @pytest.fixture(autouse=True, scope="class")
    @staticmethod
    def folders(tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = str(save_tiny(tmp_path_factory.mktemp("upstream") / "a", positions=16384))
        Settings.pipe = pipeline(
            "text-generation", model=folder, tokenizer=folder, max_new_tokens=64
        )

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatHuggingFace

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "llm": HuggingFacePipeline(pipeline=Settings.pipe),
            "model_id": Settings.pipe.model.name_or_path,
        }


class TestUpstreamUnit(Settings, ChatModelUnitTests):
    pass


class TestUpstreamIntegration(Settings, ChatModelIntegrationTests):
    pass
