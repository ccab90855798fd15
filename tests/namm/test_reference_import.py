"""Checkpoints of the reference implementation: read, and never run. They are made here, with random
numbers.
"""

import io
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from namm_llm.errors import NammFileError, UsageError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram, reference

BUFFERS = "stored_buffers_to_save.token_embedding_0_"


def evolution_state(parameters: int = 4172, prefix: str = "") -> "OrderedDict[str, torch.Tensor]":
    """The parts of the state of CMA-ES that matter, and some that do not."""
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict(
        mu_eff=torch.tensor(9.18),
        g=torch.tensor(3),
        best_member=torch.randn(parameters, generator=generator),
        mean=torch.randn(parameters, generator=generator),
        C=torch.eye(8),
    )
    for name in ("online_new_output_mean", "online_new_output_var"):
        state[BUFFERS + name] = torch.zeros(1, 1, 1, 17)
    state[f"{BUFFERS}output_mean"] = torch.rand(1, 1, 1, 17, generator=generator)
    state[f"{BUFFERS}output_var"] = torch.rand(1, 1, 1, 17, generator=generator)
    state[f"{BUFFERS}output_num"] = torch.full((1, 1, 1, 17), 1000)
    return OrderedDict((prefix + key, value) for key, value in state.items())


def write_checkpoint(path: Path, state: Any, **others: Any) -> None:
    torch.save(
        {"evolution_state": state, "iter_num": 3, "best_val_loss": np.float64(-0.5), **others}, path
    )


def rewrite_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Replace in the pickle of a checkpoint, which is one record of a zip file."""
    data = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            record = source.read(name)
            if name.endswith("data.pkl"):
                assert old in record
                record = record.replace(old, new)
            target.writestr(name, record)


def message_of(path: Path) -> str:
    """What `load` says, without the path that it begins with."""
    with pytest.raises(NammFileError) as error:
        Namm.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "ckpt.pt"
    write_checkpoint(path, evolution_state())
    return path


def test_a_checkpoint(checkpoint: Path) -> None:
    state, namm = evolution_state(), Namm.import_reference(checkpoint)

    assert torch.equal(namm.theta, state["mean"])
    assert torch.equal(namm.mean, state[f"{BUFFERS}output_mean"].flatten())
    assert torch.equal(namm.variance, state[f"{BUFFERS}output_var"].flatten())
    assert Namm.load(checkpoint) == namm


def test_the_best_member(checkpoint: Path) -> None:
    assert torch.equal(
        Namm.import_reference(checkpoint, member="best").theta, evolution_state()["best_member"]
    )


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_scalars_under_the_old_and_the_new_name(checkpoint: Path, module: bytes) -> None:
    ours = np.float64(0.0).__reduce__()[0].__module__.encode()
    rewrite_pickle(checkpoint, b"c" + ours + b"\n", b"c" + module + b"\n")

    assert torch.equal(Namm.import_reference(checkpoint).theta, evolution_state()["mean"])


@pytest.mark.parametrize("score", [-1e9, np.float32(0.5), np.float64(0.5)])
def test_scores_of_every_kind(tmp_path: Path, score: float) -> None:
    path = tmp_path / "ckpt.pt"
    write_checkpoint(path, evolution_state(), best_val_loss=score)

    assert Namm.load(path).attention_dim == 32


def test_prefixes_of_compiled_modules(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    write_checkpoint(path, evolution_state(prefix="_orig_mod."))

    assert torch.equal(Namm.import_reference(path).theta, evolution_state()["mean"])


def test_other_settings_can_be_given(checkpoint: Path) -> None:
    namm = Namm.import_reference(
        checkpoint, settings=NammSettings(Spectrogram(decay=0.9), Recency(max_freq=100.0))
    )

    assert (namm.settings.spectrogram.decay, namm.settings.recency.max_freq) == (0.9, 100.0)


def test_nothing_points_into_the_file_afterwards(checkpoint: Path) -> None:
    namm = Namm.import_reference(checkpoint)
    before = namm.fingerprint
    with checkpoint.open("r+b") as file:
        file.write(b"\xff" * checkpoint.stat().st_size)

    assert namm.fingerprint == before


def test_the_import_saved_is_the_import(checkpoint: Path, tmp_path: Path) -> None:
    namm = Namm.import_reference(checkpoint)

    namm.save(tmp_path / "namm.safetensors")

    assert Namm.load(tmp_path / "namm.safetensors") == namm


class Malicious:
    """Unpickled without care, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "ckpt.pt", tmp_path / "trace"
    write_checkpoint(path, evolution_state(), extra=Malicious(f"echo > '{trace}'"))

    assert (
        message_of(path)
        == f"refused, because it names {os.system.__module__}.system, which could run code."
    )
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the file does bite


def test_code_in_a_newer_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    """Protocol 4 names its globals in another way, which torch's list of names does not see."""
    path, trace = tmp_path / "ckpt.pt", tmp_path / "trace"
    torch.save({"extra": Malicious(f"echo > '{trace}'")}, path, pickle_protocol=4)

    assert "refused" in message_of(path) or "not a checkpoint" in message_of(path)
    assert not trace.exists()


def test_the_unpickler_refuses_code_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of names is for the message; were it wrong, still nothing would run."""
    path, trace = tmp_path / "ckpt.pt", tmp_path / "trace"
    write_checkpoint(path, evolution_state(), extra=Malicious(f"echo > '{trace}'"))
    monkeypatch.setattr(reference, "get_unsafe_globals_in_checkpoint", lambda _: [])

    assert message_of(path) == "damaged, or refused by torch's restricted unpickler."
    assert not trace.exists()


def test_any_other_type_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    write_checkpoint(path, evolution_state(), folder=Path("/tmp"), array=np.zeros(3))

    message = message_of(path)

    assert message.startswith("refused, because it names ")
    assert "pathlib" in message
    assert "numpy._core.multiarray._reconstruct, numpy.ndarray" in message


def test_the_list_of_allowed_types_is_not_left_behind(checkpoint: Path) -> None:
    before = set(torch.serialization.get_safe_globals())

    Namm.import_reference(checkpoint)

    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("kept", [0, 10, 5_000, -1_000, -10])
def test_truncated(checkpoint: Path, kept: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])

    assert message_of(checkpoint) == "not a checkpoint of torch.save, or cut short."


def test_a_damaged_pickle(checkpoint: Path) -> None:
    rewrite_pickle(checkpoint, b"evolution_state", b"evolution\xff\xff\xff\xff\xff\xff")

    assert message_of(checkpoint) == "damaged, or refused by torch's restricted unpickler."


@pytest.mark.parametrize("content", [{}, [1, 2], {"evolution_state": 3}, {"model": torch.zeros(3)}])
def test_another_checkpoint(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save(content, path)

    assert (
        message_of(path)
        == "a checkpoint, but not of the reference NAMM (it has no evolution_state)."
    )


NO_STATISTICS = (
    "it has no statistics (mean and variance): un-normalised features would be scored wrongly."
)


@pytest.mark.parametrize("key", ["output_mean", "output_var"])
def test_missing_statistics(tmp_path: Path, key: str) -> None:
    path, state = tmp_path / "ckpt.pt", evolution_state()
    del state[BUFFERS + key]
    write_checkpoint(path, state)

    assert message_of(path) == NO_STATISTICS


def test_statistics_of_no_token(tmp_path: Path) -> None:
    path, state = tmp_path / "ckpt.pt", evolution_state()
    state[f"{BUFFERS}output_num"].zero_()
    write_checkpoint(path, state)

    assert message_of(path) == NO_STATISTICS


def test_missing_parameters(tmp_path: Path) -> None:
    path, state = tmp_path / "ckpt.pt", evolution_state()
    del state["mean"]
    write_checkpoint(path, state)

    assert message_of(path) == "its evolution_state has no tensor mean."


def test_wrong_number_of_parameters(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    write_checkpoint(path, evolution_state(parameters=4000))

    assert (
        message_of(path)
        == "wrong number of parameters: got 4000, expected 4172 (25 features, attention_dim 32)."
    )


def test_another_member(checkpoint: Path) -> None:
    with pytest.raises(UsageError) as error:
        Namm.import_reference(checkpoint, member="worst")  # type: ignore[arg-type]

    assert (
        str(error.value) == "no member 'worst' in a reference checkpoint: choose from mean, best."
    )
