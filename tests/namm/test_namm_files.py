"""Saving and loading: bit for bit, all or nothing, and a clear line for every file that does not
serve.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from namm_llm.errors import NammFileError
from namm_llm.namm import Namm, NammSettings, Recency, Spectrogram, files

VECTORS = {"theta": torch.zeros(4172), "mean": torch.zeros(17), "variance": torch.ones(17)}


def write_bad(
    path: Path, *, without: str = "", tensors: dict[str, Any] | None = None, **header: Any
) -> None:
    """A file of ours with something wrong in its tensors or header."""
    namm = Namm.zeros()
    header = {"version": 1, **namm.parts()[0], **header}
    vectors = {**VECTORS, **(tensors or {})}
    vectors.pop(without, None)
    save_file(vectors, path, {files.HEADER: json.dumps(header)})


def message_of(path: Path) -> str:
    """What `load` says, without the path that it begins with."""
    with pytest.raises(NammFileError) as error:
        Namm.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("seed", range(3))
def test_round_trip_is_bit_exact(make_namm: Callable[..., Namm], tmp_path: Path, seed: int) -> None:
    namm = make_namm(seed)

    namm.save(tmp_path / "a.safetensors")
    again = Namm.load(tmp_path / "a.safetensors")

    for name in ("theta", "mean", "variance"):
        assert torch.equal(
            getattr(again, name).view(torch.int32), getattr(namm, name).view(torch.int32)
        )
    assert again == namm


def test_round_trip_of_other_settings_and_a_parameter_in_training(tmp_path: Path) -> None:
    spectrogram, recency = Spectrogram(n_fft=8, hop=4, decay=0.9), Recency(size=4, max_freq=100.0)
    settings = NammSettings(spectrogram, recency, replay=True, neighbour_radius=2, mlp_hidden=3)
    start = Namm.zeros(8, settings)
    namm = Namm(torch.nn.Parameter(start.theta), start.mean, start.variance, settings)

    namm.save(tmp_path / "a.safetensors")
    again = Namm.load(str(tmp_path / "a.safetensors"))

    assert (again.settings, again.attention_dim) == (settings, 8)
    assert again == namm


def test_the_file_is_small_and_always_the_same(
    make_namm: Callable[..., Namm], tmp_path: Path
) -> None:
    for name in "ab":
        make_namm().save(tmp_path / name)

    data = (tmp_path / "a").read_bytes()
    assert len(data) < 20_000
    assert data == (tmp_path / "b").read_bytes()


def test_saving_replaces_and_leaves_nothing_else(
    make_namm: Callable[..., Namm], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    Namm.zeros().save(path)

    make_namm(1).save(path)

    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert Namm.load(path) == make_namm(1)


def test_nothing_points_into_the_file_afterwards(
    make_namm: Callable[..., Namm], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    make_namm().save(path)
    loaded = Namm.load(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)

    assert loaded == make_namm()


def test_a_failed_save_keeps_the_old_file(
    make_namm: Callable[..., Namm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    Namm.zeros().save(path)

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_full)
    with pytest.raises(NammFileError) as error:
        make_namm().save(path)

    assert str(error.value) == f"{path} cannot be written: No space left on device."
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert Namm.load(path) == Namm.zeros()


def test_saving_into_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "no" / "a.safetensors"

    with pytest.raises(NammFileError) as error:
        Namm.zeros().save(path)

    assert str(error.value) == f"{path} cannot be written: No such file or directory."


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt", "."])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    assert message_of(tmp_path / name) == "no such NAMM file."


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100, b"{" * 1000])
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)

    assert message_of(path).startswith("not a safetensors file, or cut short (")


@pytest.mark.parametrize("kept", [4, 100, 1000, 17_000])
def test_truncated(make_namm: Callable[..., Namm], tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    make_namm().save(path)
    path.write_bytes(path.read_bytes()[:kept])

    assert message_of(path).startswith("not a safetensors file, or cut short (")


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(VECTORS, path, {"format": "pt"})

    assert message_of(path) == "a safetensors file, but not of a NAMM."


@pytest.mark.parametrize("header", ["", "[]", "null", "{}", "{"])
def test_damaged_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file(VECTORS, path, {files.HEADER: header})

    assert message_of(path) == "its header is damaged."


def test_other_version(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_bad(path, version=2)

    assert (
        message_of(path) == "format version 2, but this namm-llm reads version 1: update namm-llm."
    )


@pytest.mark.parametrize("missing", ["theta", "mean", "variance"])
def test_missing_numbers(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "a.safetensors"
    write_bad(path, without=missing)

    assert (
        message_of(path) == f"it has no {missing}: train it again, or save it with its statistics."
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"tensors": {"theta": torch.zeros(4171)}},
            "wrong number of parameters: got 4171, expected 4172 (attention_dim 32).",
        ),
        (
            {"attention_dim": 16},
            "wrong number of parameters: got 4172, expected 2124 (attention_dim 16).",
        ),
        (
            {"tensors": {"mean": torch.zeros(16)}},
            "wrong number of means and variances: got 16 and 17, expected 17 each.",
        ),
        (
            {"tensors": {"mean": torch.full((17,), torch.nan)}},
            "mean has numbers that are not finite.",
        ),
        (
            {"tensors": {"theta": torch.full((4172,), torch.inf)}},
            "theta has numbers that are not finite.",
        ),
        (
            {"spectrogram": {"n_fft": 32, "hop": 8, "decay": 0.99}},
            "The spectrogram needs n_fft = 2 * hop, got n_fft 32 and hop 8.",
        ),
        ({"spectrogram": {"n_fft": 32, "hop": "16"}}, "its header is damaged."),
        (
            {"spectrogram": {"pages": 3}},
            "it was made with spectrogram.pages, which this namm-llm does not know: "
            "update namm-llm.",
        ),
        (
            {"charm": 1},
            "it was made with charm, which this namm-llm does not know: update namm-llm.",
        ),
        (
            {"neighbour_radius": 4},
            "neighbour_radius must be 0 or more, and above 0 only with replay, got 4.",
        ),
        ({"recency": None}, "its header is damaged."),
        ({"attention_dim": "many"}, "its header is damaged."),
        (
            {"tensors": {"mean": torch.full((17,), 0.5)}, "fingerprint": "0123456789ab"},
            "damaged: its numbers have fingerprint b4b09a80546b, its header says 0123456789ab.",
        ),
    ],
)
def test_wrong_content(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.safetensors"
    write_bad(path, **wrong)

    assert message_of(path) == message
