"""The file of a memory brings all it needs: whoever opens it, wherever, gets the answers of the
memory that was saved.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from namm_llm.config import CacheConfig, make_cache_config
from namm_llm.config.header import config_from_dict, config_tensors, config_to_dict
from namm_llm.document import Document
from namm_llm.documents import SavedHeader, SavedModel, read_header
from namm_llm.documents.saved import VERSION
from namm_llm.errors import DocumentError, PolicyError, UsageError
from namm_llm.policies import POLICIES
from namm_llm.policies.budget import Budget, ByteBudget, FractionBudget, TokenBudget, TokenCost
from namm_llm.policies.snapkv import SnapKV
from tests.documents.vaults import IDS, QUESTIONS, REMEMBERING, SETTINGS, TEXT, load, random_namm
from tests.tiny import save_tiny

# what a process that knows only the model's folder and the files answers, as JSON
ASK = """
import json, sys
from namm_llm import Runner
folder, questions, files = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
runner = Runner.load(folder)
for file in files:
    memory = runner.open(file)
    for sampling in ({}, {"temperature": 1.0, "seed": 5}):
        found = [memory.ask(question, max_tokens=40, **sampling) for question in questions]
        rows = [[a.text, a.usage.output_tokens, a.cache.stored_tokens] for a in found]
        print(json.dumps(rows))
"""


@pytest.fixture
def saved(tiny_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "vaults.namm"
    load(tiny_folder, **SETTINGS[1]).read(TEXT).save(path)
    return path


# -- what comes back -------------------------------------------------------------------------------
# -----------------------------------


def test_a_new_process_answers_as_if_never_saved(tiny_folder: Path, tmp_path: Path) -> None:
    expected, files = [], []
    for name, settings in zip(IDS, SETTINGS, strict=True):
        memory = load(tiny_folder, **settings).read(TEXT)
        files.append(str(tmp_path / f"{name}.namm"))
        memory.save(files[-1])
        for sampling in ({}, {"temperature": 1.0, "seed": 5}):
            answers = [memory.ask(question, max_tokens=40, **sampling) for question in QUESTIONS]
            expected.append(
                [
                    [answer.text, answer.usage.output_tokens, answer.cache.stored_tokens]
                    for answer in answers
                ]
            )
    command = [sys.executable, "-c", ASK, str(tiny_folder), json.dumps(QUESTIONS), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_a_loaded_memory_is_the_one_that_was_saved(
    tiny_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    document = load(tiny_folder, **settings).read(TEXT)
    document.save(tmp_path / "vaults.namm")
    opened = load(tiny_folder).open(tmp_path / "vaults.namm")
    (mine, numbers), (other, expected_numbers) = opened.cache.state(), document.cache.state()
    assert numbers == expected_numbers
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())
    assert {**opened.info(), "nbytes": 0} == {
        **document.info(),
        "nbytes": 0,
    }  # loaded buffers have no empty room
    opened.save(tmp_path / "again.namm")
    assert (tmp_path / "again.namm").read_bytes() == (tmp_path / "vaults.namm").read_bytes()


def test_a_memory_keeps_its_settings_whatever_the_runner_has(
    saved: Path, tiny_folder: Path
) -> None:
    expected = load(tiny_folder, **SETTINGS[1]).open(saved).ask(QUESTIONS[1], max_tokens=40)
    for settings in (
        {},
        {"policy": "snapkv", "budget": 8},
        {"policy": "replay", "budget": 0.9, "interval": 16},
    ):
        memory = load(tiny_folder, **settings).open(saved)
        assert memory.info()["policy"] == "h2o, budget 0.25, head"
        found = memory.ask(QUESTIONS[1], max_tokens=40)
        assert (found.text, found.cache.stored_tokens, found.cache.policy) == (
            expected.text,
            expected.cache.stored_tokens,
            expected.cache.policy,
        )


def test_a_loaded_memory_is_extended_as_the_one_that_was_saved(
    tiny_folder: Path, tmp_path: Path
) -> None:
    document = load(tiny_folder, **SETTINGS[3]).read(TEXT)
    document.save(tmp_path / "vaults.namm")
    more = " A newer vault holds 17 coins." * 9
    expected, found = (
        document.extend(more),
        load(tiny_folder).open(tmp_path / "vaults.namm").extend(more),
    )
    assert found.info() == expected.info()
    assert all(
        torch.equal(tensor, expected.cache.state()[0][name])
        for name, tensor in found.cache.state()[0].items()
    )


def test_memories_of_several_policies_are_asked_at_once(tiny_folder: Path, tmp_path: Path) -> None:
    """What one batch decodes may come from documents that were read with other settings; each gets
    what it would alone.
    """
    runner, memories = load(tiny_folder, interval=16), []
    for name, settings in zip(IDS, SETTINGS, strict=True):
        load(tiny_folder, **{**settings, "interval": 16}).read(TEXT).save(tmp_path / f"{name}.namm")
        memories.append(runner.open(tmp_path / f"{name}.namm"))
    alone = [memory.ask(QUESTIONS[0], max_tokens=40).text for memory in memories]
    streams = [memory.stream(QUESTIONS[0], max_tokens=40) for memory in memories]
    assert ["".join(piece.text for piece in stream) for stream in streams] == alone


def test_the_namm_comes_from_the_file(tiny_folder: Path, tmp_path: Path) -> None:
    namm = random_namm(3, **REMEMBERING)
    runner = load(tiny_folder, policy="namm", namm=namm, budget=0.3, interval=32)
    runner.read(TEXT).save(tmp_path / "vaults.namm")
    for other in (load(tiny_folder), load(tiny_folder, policy="namm", budget=0.3, interval=32)):
        eviction = other.open(tmp_path / "vaults.namm").cache.config
        assert eviction.policy.namm == namm
        assert eviction.policy.namm.settings == namm.settings
    assert (
        read_header(tmp_path / "vaults.namm").config["policy"]["namm"]["fingerprint"]
        == namm.fingerprint
    )


EVICTIONS = [
    make_cache_config("full"),
    make_cache_config("h2o", budget=0.123456789),
    make_cache_config(
        "streaming_llm", budget=2048, sinks=7, protect_recent=100, protected=[(0, 5), (9, 12)]
    ),
    make_cache_config("tova", budget="1.5MiB", budget_scope="layer", interval=77),
    make_cache_config(SnapKV(window=5, kernel=3), budget=1.0),
    make_cache_config("random", budget=2),
    make_cache_config("namm", namm=random_namm(1), budget_scope="padded"),
    make_cache_config("namm", namm=random_namm(2, **REMEMBERING), budget=0.5, budget_scope="model"),
]


@pytest.mark.parametrize("eviction", EVICTIONS, ids=lambda eviction: eviction.describe())
def test_all_settings_survive_the_way_through_json(eviction: CacheConfig) -> None:
    restored = config_from_dict(
        json.loads(json.dumps(config_to_dict(eviction))), config_tensors(eviction)
    )
    assert restored == eviction
    assert repr(restored) == repr(eviction)


def test_every_policy_can_be_saved() -> None:
    for name in POLICIES:
        eviction = make_cache_config(
            name,
            budget=None if name == "full" else 0.5,
            namm=random_namm() if name == "namm" else None,
        )
        assert config_from_dict(config_to_dict(eviction), config_tensors(eviction)) == eviction
    for budget in (FractionBudget(0.5), TokenBudget(3), ByteBudget(10**6, "1MB")):
        eviction = make_cache_config("tova", budget=budget)
        assert config_from_dict(config_to_dict(eviction), {}).budget == budget


def test_equal_settings_have_equal_values_and_others_have_not() -> None:
    values = [json.dumps(config_to_dict(eviction), sort_keys=True) for eviction in EVICTIONS]
    assert len(set(values)) == len(EVICTIONS)
    assert values[-1] == json.dumps(
        config_to_dict(
            make_cache_config(
                "namm", namm=random_namm(2, **REMEMBERING), budget=0.5, budget_scope="model"
            )
        ),
        sort_keys=True,
    )


# -- the header ------------------------------------------------------------------------------------
# -----------------------------------


def test_the_header_says_what_the_file_holds(saved: Path, tiny_folder: Path) -> None:
    runner = load(tiny_folder, **SETTINGS[1])
    header, info = read_header(str(saved)), runner.open(saved).info()
    assert isinstance(header, SavedHeader)
    assert header.version == VERSION
    assert header.model == SavedModel.of(runner.loaded)
    assert (header.model.name, header.model.quantization, header.model.dtype) == (
        str(tiny_folder.resolve()),
        None,
        "float32",
    )
    assert header.config["policy"]["name"] == "h2o"
    assert (header.config["budget"], header.config["interval"]) == (0.25, 32)
    assert header.config["protected"] == [[0, runner.session.format.head_tokens]]
    assert header.policy == info["policy"] == "h2o, budget 0.25, head"
    assert (header.seen_tokens, header.stored_tokens) == (
        info["seen_tokens"],
        info["stored_tokens"],
    )
    assert header.text_sha256 == info["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert header.extra == {}


def test_strings_of_whoever_saves_go_along(tiny_folder: Path, tmp_path: Path) -> None:
    runner, path = load(tiny_folder), tmp_path / "fox.namm"
    document = runner.read("The fox.")
    document.save(path, extra={"name": "Füchse", "sources": '["fox.txt"]'})
    assert (
        read_header(path).extra
        == runner.open(path).extra
        == {"name": "Füchse", "sources": '["fox.txt"]'}
    )
    runner.open(path).extend(" It runs.").save(tmp_path / "more.namm")
    assert read_header(tmp_path / "more.namm").extra["name"] == "Füchse"
    runner.open(path).save(path, extra={})
    assert read_header(path).extra == {}
    with pytest.raises(UsageError, match=r"extra is a dictionary of strings, not {'pages': 3}\."):
        document.save(path, extra={"pages": 3})  # type: ignore[dict-item]


def test_looking_at_a_header_needs_no_model_and_no_tensors(saved: Path) -> None:
    damaged = bytearray(saved.read_bytes())
    damaged[-1] ^= 1
    saved.write_bytes(damaged)
    assert read_header(saved).seen_tokens > 0


def test_the_file_is_as_large_as_the_cache(tiny_folder: Path, tmp_path: Path) -> None:
    memory = load(tiny_folder, policy="streaming_llm", budget=0.5, interval=64).read(TEXT * 12)
    memory.save(tmp_path / "vaults.namm")
    size, nbytes = (tmp_path / "vaults.namm").stat().st_size, memory.info()["nbytes"]
    assert 0.97 * nbytes < size < 1.03 * nbytes, (size, nbytes)


# -- what is refused -------------------------------------------------------------------------------
# -----------------------------------


def test_an_unquantised_memory_is_not_one_of_a_quantised_model(
    saved: Path, tiny_folder: Path
) -> None:
    with pytest.raises(
        DocumentError,
        match=r"\(float32\), this runner has .*tiny-llama \(nf4, float32\)\. Load that model",
    ):
        load(tiny_folder, quantization="nf4").open(saved)
    with pytest.raises(
        DocumentError,
        match=r"\(float32\), this runner has .*tiny-llama \(bfloat16\)\. Load that model",
    ):
        load(tiny_folder, dtype="bfloat16").open(saved)


def test_a_memory_read_through_another_chat_template_is_refused(
    saved: Path, tmp_path: Path
) -> None:
    other = load(
        save_tiny(tmp_path / "other", template="{{ bos_token }}{{ messages[-1]['content'] }}")
    )
    assert other.fingerprint == read_header(saved).model.fingerprint
    with pytest.raises(DocumentError) as error:
        other.open(saved)
    assert str(error.value) == (
        f"{saved} was read through another chat template than {(tmp_path / 'other').resolve()} "
        "(float32) has now. "
        "Put the old one back, or read the document again."
    )


def test_the_memory_of_another_model_is_refused(
    saved: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    other = load(save_tiny(tmp_path / "other", seed=1))
    with pytest.raises(DocumentError) as error:
        other.open(saved)
    mine, others = tiny_folder.resolve(), (tmp_path / "other").resolve()
    assert str(error.value) == (
        f"{saved} was saved with the weights of {mine} (float32), this runner has {others} "
        "(float32). "
        "Load that model, or read the document again."
    )


def test_a_policy_of_ones_own_is_put_into_the_table_first(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(SnapKV):
        name = "mine"

    load(tiny_folder, policy=Mine(window=4), budget=0.5, interval=32).read(TEXT).save(
        tmp_path / "mine.namm"
    )
    with pytest.raises(
        DocumentError,
        match=r"mine\.namm cannot be asked: there is no policy 'mine'; choose one of full, ",
    ):
        load(tiny_folder).open(tmp_path / "mine.namm")
    monkeypatch.setitem(POLICIES, "mine", Mine)
    assert load(tiny_folder).open(tmp_path / "mine.namm").cache.config.policy == Mine(window=4)


@dataclass(frozen=True)
class Grown(SnapKV):
    """SnapKV of a later program."""

    reach: int = 3


def test_a_file_without_a_setting_that_came_later_has_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = config_to_dict(make_cache_config(SnapKV(), budget=0.5))
    monkeypatch.setitem(POLICIES, "snapkv", Grown)
    assert config_from_dict(before, {}).policy == Grown()
    changed = make_cache_config(Grown(reach=4), budget=0.5)
    assert config_to_dict(changed)["policy"]["reach"] == 4
    assert config_from_dict(config_to_dict(changed), {}) == changed


def test_what_the_first_files_name_is_named_for_ever() -> None:
    """IDs in the store follow from it."""
    assert config_to_dict(make_cache_config("h2o", budget=0.25)) == {
        "policy": {"name": "h2o", "recent_share": 0.5},
        "budget": 0.25,
        "budget_scope": "head",
        "interval": 512,
        "sinks": None,
        "protect_recent": None,
        "protected": [],
        "kv_bits": None,
    }
    expected = {
        "full": {},
        "streaming_llm": {"num_sinks": 4},
        "snapkv": {"window": 32, "kernel": 7},
        "random": {"seed": 0},
        "replay": {"border": 16},
        "namm": {"namm": random_namm().parts()[0], "exact": False},
    }
    for name, named in expected.items():
        eviction = make_cache_config(
            name,
            budget=None if name == "full" else 0.5,
            namm=random_namm() if name == "namm" else None,
        )
        assert config_to_dict(eviction)["policy"] == {"name": name, **named}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"policy": {"name": "h2o", "recent_share": 0.5, "reach": 3}},
            "policy h2o has the setting reach",
        ),
        ({"depth": 2}, "the cache has the setting depth"),
    ],
    ids=["policy", "cache"],
)
def test_a_setting_of_a_newer_program_is_named(
    saved: Path, tiny_folder: Path, settings: dict[str, Any], message: str
) -> None:
    rewrite(saved, checked=True, config=read_header(saved).config | settings)
    with pytest.raises(DocumentError) as error:
        load(tiny_folder).open(saved)
    assert str(error.value) == (
        f"{saved} cannot be asked: {message}, which this program does not know; update namm-llm, "
        "or read the document again."
    )


def rewrite(path: Path, *, checked: bool = False, **header: Any) -> None:
    """Another header; with `checked` one that carries its own checksum, as only a program could
    write it.
    """
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["namm_document"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata |= header
    if checked:
        metadata.pop("header_sha256")
        metadata["header_sha256"] = hashlib.sha256(
            json.dumps(metadata, sort_keys=True).encode()
        ).hexdigest()
    save_file(tensors, path, {"namm_document": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-100]),
            "vaults.namm is damaged or cut short (",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:5]),
            "vaults.namm is damaged or cut short (5 bytes)",
        ),
        (lambda path: path.write_bytes(b""), "vaults.namm is damaged or cut short (0 bytes)"),
        (lambda path: path.write_text("hello"), "vaults.namm is damaged or cut short (5 bytes)"),
        (
            lambda path: save_file({"a": torch.zeros(1)}, path),
            "is a safetensors file, but no saved memory of a document.",
        ),
        (
            lambda path: rewrite(path, version=99),
            f"has format version 99, this program knows version {VERSION}. Read the document "
            "again.",
        ),
        (
            lambda path: rewrite(path, version=1),
            f"has format version 1, this program knows version {VERSION}. Read the document again.",
        ),
        (
            lambda path: rewrite(path, seen_tokens=3),
            "is damaged: its header is not the one that was saved. Read the document again.",
        ),
        (
            lambda path: rewrite(path, checked=True, more=1),
            "is a safetensors file, but no saved memory of a document.",
        ),
        (
            lambda path: rewrite(path, checked=True, tensors_sha256="0"),
            "is damaged: its numbers are not those that were saved. Read the",
        ),
        (
            lambda path: rewrite(path, checked=True, cache={}),
            "vaults.namm is of no use to this program (",
        ),
        (
            lambda path: path.unlink(),
            "vaults.namm is not there; save one with Document.save or `namm-llm read`.",
        ),
    ],
    ids=[
        "cut",
        "5 bytes",
        "empty",
        "no file of ours",
        "other tensors",
        "newer",
        "older",
        "header",
        "more",
        "numbers",
        "cache",
        "none",
    ],
)
def test_a_broken_memory_is_explained(
    saved: Path, tiny_folder: Path, break_it: Callable[[Path], Any], message: str
) -> None:
    runner = load(tiny_folder)
    break_it(saved)
    with pytest.raises(DocumentError) as error:
        Document.load(saved, runner.session)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_memory(tiny_folder: Path, tmp_path: Path) -> None:
    for look in (load(tiny_folder).open, read_header):
        with pytest.raises(DocumentError, match="is a folder, not a saved memory"):
            look(tmp_path)


def test_saving_where_nothing_can_be_written_leaves_nothing(
    tiny_folder: Path, tmp_path: Path
) -> None:
    document = load(tiny_folder).read("The fox.")
    with pytest.raises(DocumentError, match="cannot be written: "):
        document.save(tmp_path / "no" / "folder.namm")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DocumentError, match="cannot be written: "):
        document.save(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_budget_of_ones_own_is_refused_before_anything_is_written(
    tiny_folder: Path, tmp_path: Path
) -> None:
    class Odd(Budget):
        def tokens(self, seen: int, cost: TokenCost) -> int:
            return 31

    memory = load(tiny_folder, policy="tova", budget=Odd()).read("The fox.")
    with pytest.raises(PolicyError, match=r"a budget of your own \(Odd\) cannot be saved"):
        memory.save(tmp_path / "x.namm")
    assert list(tmp_path.iterdir()) == []
