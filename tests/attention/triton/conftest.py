"""Every kernel test runs in Triton's interpreter on the CPU, and on a GPU when there is one (make
test-gpu).
"""

from __future__ import annotations

import pytest
import torch

from namm_llm.attention import observation

pytest.importorskip("triton")

LENGTHS = (1, 2, 15, 17, 127, 129)
GROUPS = (1, 4, 8)
SIZES = (64, 80, 128)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# one row of the matrix for each value of each dimension; the whole matrix is slow in the
# interpreter
FEW = [
    (1, 1, 64, torch.float32),
    (2, 4, 80, torch.bfloat16),
    (15, 8, 64, torch.float16),
    (17, 4, 128, torch.float32),
    (127, 1, 80, torch.float16),
    (129, 4, 64, torch.bfloat16),
]
REST = [
    (n, r, d, t)
    for n in LENGTHS
    for r in GROUPS
    for d in SIZES
    for t in DTYPES
    if (n, r, d, t) not in FEW
]
matrix = pytest.mark.parametrize(
    ("length", "rows", "size", "dtype"),
    [*FEW, *(pytest.param(*row, marks=pytest.mark.slow) for row in REST)],
    ids=lambda value: str(value).removeprefix("torch."),
)


@pytest.fixture(
    params=[pytest.param("cpu", id="interpreter"), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the kernel runs."""
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("on a machine with a GPU the kernels run there: make test-gpu")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """The kernels compute in float32 whatever the CPU would choose for itself."""
    monkeypatch.setattr(observation, "_replay_dtype", lambda device: torch.float32)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def draw(
    *shape: int, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    """Normal numbers, the same on every device, in the first part of a larger buffer whose rest is
    NaN: reading beyond shows.
    """
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    buffer = torch.full(
        [side + 3 if at < len(shape) - 1 else side for at, side in enumerate(shape)], torch.nan
    )
    window = tuple(slice(side) for side in shape)
    buffer[window] = numbers
    return buffer.to(device, dtype)[window]
