"""`namm-llm models`, and the model that a command takes when nobody names one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_llm.cli.main import main
from namm_llm.cli.options import Settings, default_model
from namm_llm.models.catalogue import catalogue


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="namm-llm")


@pytest.fixture
def pulled() -> Path:
    """Stands for the pulled SmolLM2: what is looked for is its file."""
    path = catalogue()["smollm2-135m"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    return path


def test_the_list_says_what_is_here_and_what_others_take(pulled: Path) -> None:
    lines = call("models", "list").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert "here" in rows["namm-tiny"]
    assert "here" in rows["smollm2-135m"]
    assert "238 MB to pull" in rows["gemma3-270m"]
    assert "base model" in rows["gemma3-270m"]
    assert "hf auth login" in rows["meta-llama/Llama-3.2-1B-Instruct"]


def test_the_list_as_json_has_the_same_rows() -> None:
    rows = [json.loads(line) for line in call("models", "list", "--json").stdout.splitlines()]
    names = [row["name"] for row in rows]
    assert names[:5] == [
        "namm-tiny",
        "qwen2.5-coder-1.5b",
        "qwen2.5-coder-0.5b",
        "smollm2-135m",
        "gemma3-270m",
    ]
    assert rows[3]["nbytes"] == 98_362_432
    assert not rows[3]["here"]


def test_what_is_here_is_not_pulled_again(pulled: Path) -> None:
    done = call("models", "pull", "smollm2-135m")
    assert done.stderr == "smollm2-135m is here already (98 MB).\n"
    assert done.stdout == f"{pulled}\n"
    assert call("models", "path", "smollm2-135m").stdout == f"{pulled}\n"


@pytest.mark.parametrize("command", ["pull", "path"])
def test_an_unknown_name_is_one_line_with_the_names_there_are(command: str) -> None:
    done = call("models", command, "smollm2")
    assert done.exit_code == 2
    assert "it has qwen2.5-coder-1.5b, qwen2.5-coder-0.5b, smollm2-135m, gemma3-270m" in done.stderr
    assert done.stderr.endswith("Did you mean smollm2-135m?\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("models", "path"), ("models", "show"), ("ask", "-", "Why?")])
def test_a_name_that_is_not_pulled_says_how_to_pull_it(command: tuple[str, ...]) -> None:
    arguments = (*command, "smollm2-135m") if command[0] == "models" else (*command, "--model")
    named = arguments if command[0] == "models" else (*arguments, "smollm2-135m")
    done = CliRunner().invoke(main, named, input="The lamp is green.", prog_name="namm-llm")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: smollm2-135m is not here yet: `namm-llm models pull smollm2-135m` fetches it "
        "(93 MB).\n"
    )


def test_the_bundled_model_shows_what_is_in_it() -> None:
    shown = json.loads(call("models", "show", "namm-tiny", "--json").stdout)
    assert (shown["architecture"], shown["layers"], shown["kv_heads"]) == ("llama", 5, 2)
    assert shown["has_chat_template"]
    assert Path(shown["namm"]).is_file()
    assert shown["licence"] == "apache-2.0"


def test_a_folder_and_its_gguf_file_show_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf, which writes the file, is not installed")
    from tests.models.gguf.files import VOCABULARY, tiny_model, write_model

    model = tiny_model("llama", VOCABULARY)
    path = write_model(tmp_path / "small.gguf", model, "llama", "Q8_0")
    model.save_pretrained(tmp_path / "folder")
    file = json.loads(call("models", "show", str(path), "--json").stdout)
    assert file["quantization"] == "Q8_0"
    assert file["nbytes"] == path.stat().st_size
    assert not file["has_chat_template"]
    converted = call("models", "convert", str(path), str(tmp_path / "written"))
    assert converted.stdout == f"{tmp_path / 'written'}\n"
    folder = json.loads(call("models", "show", str(tmp_path / "written"), "--json").stdout)
    same = ("architecture", "positions", "layers", "heads", "kv_heads", "head_dim", "vocabulary")
    assert [file[key] for key in same] == [folder[key] for key in same]


def test_converting_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    done = call("models", "convert", str(tmp_path / "no.gguf"), str(tmp_path / "folder"))
    assert done.exit_code == 1
    assert "there is no file" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nobody_names_a_model_and_the_best_that_is_pulled_is_taken(pulled: Path) -> None:
    assert default_model() == "smollm2-135m"
    assert Settings({}, {}).model == "smollm2-135m"
    assert Settings({"model": "namm-tiny"}, {}).model == "namm-tiny"


def test_the_bundled_model_is_what_is_left_and_offers_a_better_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The access code of the amber vault is 48213.")
    question = "What is the access code of the amber vault?"
    done = call("ask", str(tmp_path / "a.txt"), question, "--no-keep")
    assert "48213" in done.stdout
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("namm-tiny: a tiny bundled model")
    assert "`namm-llm models pull smollm2-135m`" in done.stderr


def test_help_says_what_no_model_means() -> None:
    assert "[default: the best that is pulled, else namm-tiny]" in " ".join(
        call("ask", "--help").stdout.split()
    )
