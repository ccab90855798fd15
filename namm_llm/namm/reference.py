"""What a NAMM needs out of a checkpoint of the reference implementation (SakanaAI/evo-memory).

The files are `ckpt.pt`, `latest.pt` and `iter_{n}.pt`: pickles of about 200 MiB, nearly all of it
matrices of CMA-ES. Only theta [P] and two statistics [bins] are used. Nothing in such a file is
executed: torch's restricted unpickler builds tensors and plain containers, and here numpy's float
scalars. A file that names anything else is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from namm_llm.errors import NammFileError, UsageError

Member = Literal["mean", "best"]

MEMBERS = {"mean": "mean", "best": "best_member"}  # ours -> the key in the file
STATISTICS = "stored_buffers_to_save.token_embedding_0_output_"

# `best_val_loss` is a numpy scalar: the function that rebuilds it, under numpy's old and new name,
# and its types
_SCALAR = np.float64(0.0).__reduce__()[0]
ALLOWED: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]


def read_reference(path: Path, member: Member) -> dict[str, Tensor]:
    """theta [P], mean [bins] and variance [bins], in float32.

    member: the mean of the search distribution, which the paper evaluates, or the best individual.
    Raises NammFileError for a file that is damaged, of another kind, unsafe or without statistics,
    and UsageError for another member.
    """
    if member not in MEMBERS:
        raise UsageError(
            f"no member {member!r} in a reference checkpoint: choose from {', '.join(MEMBERS)}."
        )
    state = _evolution_state(_unpickle(path))
    _check_statistics(state)
    keys = {"theta": MEMBERS[member], "mean": f"{STATISTICS}mean", "variance": f"{STATISTICS}var"}
    return {name: _vector(state, key) for name, key in keys.items()}


def _unpickle(path: Path) -> object:
    """The file's content, of plain types only."""
    with safe_globals(ALLOWED):
        try:
            forbidden = sorted(get_unsafe_globals_in_checkpoint(path))
        except Exception as error:  # whatever a damaged file makes the parsers raise
            raise NammFileError("not a checkpoint of torch.save, or cut short.") from error
        if forbidden:
            raise NammFileError(
                f"refused, because it names {', '.join(forbidden)}, which could run code."
            )
        try:
            # mapped, because nearly all of the 200 MiB is never looked at
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            raise NammFileError("damaged, or refused by torch's restricted unpickler.") from error


def _evolution_state(checkpoint: object) -> dict[str, Any]:
    """The state of CMA-ES, its keys without the prefix that `torch.compile` puts before them."""
    state = checkpoint.get("evolution_state") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        raise NammFileError(
            "a checkpoint, but not of the reference NAMM (it has no evolution_state)."
        )
    return {str(key).replace("_orig_mod.", ""): value for key, value in state.items()}


def _check_statistics(state: dict[str, Any]) -> None:
    """Refuse what would leave the features un-normalised; the reference only warns."""
    missing = [name for name in ("mean", "var") if f"{STATISTICS}{name}" not in state]
    count = state.get(f"{STATISTICS}num")
    if missing or (isinstance(count, Tensor) and not count.any()):
        raise NammFileError(
            "it has no statistics (mean and variance): un-normalised features would be scored "
            "wrongly."
        )


def _vector(state: dict[str, Any], key: str) -> Tensor:
    """One flat vector, copied out of the mapped file."""
    value = state.get(key)
    if not isinstance(value, Tensor):
        raise NammFileError(f"its evolution_state has no tensor {key}.")
    return value.detach().reshape(-1).to(torch.float32, copy=True)
