from __future__ import annotations

import pytest
import torch

from tests.architectures import random_llama


@pytest.fixture(scope="session")
def llama():
    return random_llama()


@pytest.fixture(autouse=True)
def poisoned():
    """Unused memory is NaN, so that reading it shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield
