"""The commands with a real model, and what a user can get wrong: one clear line on stderr, exit
code 1 or 2, nothing half-written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from namm_llm import Namm
from namm_llm.cli.main import main
from tests.models.gguf.files import VOCABULARY, tiny_model, write_model

ONE, WRONG_USE = 1, 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Path:
    """A working folder with a model and a document."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, "model")
    Path("note.txt").write_text("The lamp is green. The door is red.\n")
    return tmp_path


def call(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, prog_name="namm-llm")


def refused(folder: Path, exit_code: int, message: str, *arguments: str, stdin: str = "") -> None:
    """The command ends with one line that has `message`, and writes no file."""
    before = sorted(folder.rglob("*"))
    done = call(*arguments, stdin=stdin)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.exit_code == exit_code
    assert sorted(folder.rglob("*")) == before


def ask(*options: str) -> tuple[str, ...]:
    return (
        "ask",
        "note.txt",
        "What colour is the lamp?",
        "--model",
        "./model",
        "--max-tokens",
        "3",
        *options,
    )


def test_an_answer_that_repeats_itself_is_ended_and_says_so(folder: Path) -> None:
    # what the answer holds already is favoured, so that a random model repeats itself
    options = ("--max-tokens", "180", "--frequency-penalty=-2")
    done, whole = call(*ask(*options)), call(*ask(*options, "--no-stop-loops"))
    assert done.stderr == (
        "(ended because it began to repeat itself; --no-stop-loops lets it go on)\n"
    )
    assert whole.stdout.startswith(done.stdout.rstrip("\n"))
    assert len(whole.stdout) > len(done.stdout)


def test_the_same_call_works_without_a_mistake(folder: Path) -> None:
    done = call(
        *ask("--policy", "streaming_llm", "--budget", "8", "--interval", "4", "--seed", "1")
    )
    assert (done.exit_code, done.stderr) == (0, "(cut at 3 tokens; --max-tokens allows more)\n")
    assert done.stdout.endswith("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "h2o", "--budget", "0"], "is not a budget: give a fraction"),
        (["--policy", "h2o", "--budget", "-1"], "is not a budget: give a fraction"),
        (["--policy", "h2o", "--budget", "lots"], "'lots' is not a budget: give a fraction"),
        (["--policy", "h2o", "--budget", "nan"], "is not a budget: give a fraction"),
        (["--policy", "h2o"], "policy h2o needs a budget, for example 0.25"),
        (
            ["--policy", "h20", "--budget", "0.25"],
            "there is no policy 'h20' (did you mean h2o?); choose one of full, ",
        ),
        (["--budget-scope", "everybody"], "budget_scope must be one of "),
        (["--interval", "0"], "interval must be a whole number of tokens from 1 on, not 0"),
        (["--quantization", "q4"], "quantization must be one of int4, int8, nf4, fp4"),
        (["--dtype", "float8"], "dtype must be auto, float32"),
        (["--device", "tpu"], "device must be one of auto, cpu, cuda"),
        (["--temperature", "-1"], "temperature must be a number from 0 on, not -1.0"),
        (["--max-tokens", "0"], "max_tokens must be a whole number of tokens from 1 on, not 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(folder: Path, options: list[str], message: str) -> None:
    refused(folder, WRONG_USE, message, *ask(*options))


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: shutil.rmtree("model"), "./model"),
        (lambda: Path("model/config.json").unlink(), "config.json"),
        (lambda: Path("model/config.json").write_text('{"model_type": '), "damaged or cut short"),
        (lambda: cut(Path("model/model.safetensors")), "damaged or cut short"),
        (lambda: cut(Path("model/model.safetensors"), 0.0), "damaged or cut short"),
        (lambda: Path("model/model.safetensors").unlink(), "holds no weights"),
        (lambda: cut(Path("model/tokenizer.json")), "damaged or cut short"),
        (lambda: Path("model/tokenizer.json").unlink(), "tokenizer"),
    ],
    ids=[
        "no folder",
        "no config",
        "broken config",
        "cut weights",
        "empty weights",
        "no weights",
        "cut tokenizer",
        "no tokenizer",
    ],
)
def test_a_missing_or_broken_model(
    folder: Path, damage: Callable[[], object], message: str
) -> None:
    damage()
    refused(folder, ONE, message, *ask())


def write(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "empty.txt"),
        ("blank.txt", b" \n\t\n", "blank.txt"),
        ("photo.png", b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe" * 40, "photo.png"),
        ("latin.txt", "Gr\u00fcn".encode("latin-1"), "latin.txt"),
        ("cut.namm", b"\x10\x00\x00\x00", "cut.namm"),
        ("text.namm", b"The lamp is green. " * 9, "text.namm"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
@pytest.mark.parametrize(
    "command", [["ask", "{}", "What colour?"], ["summarize", "{}"]], ids=["ask", "summarize"]
)
def test_bad_documents(
    folder: Path, command: list[str], name: str, content: bytes, message: str
) -> None:
    write(name, content)
    refused(folder, ONE, message, *(part.format(name) for part in command), "--model", "./model")


@pytest.mark.parametrize("name", ["nowhere.txt", "model", "nowhere.namm"])
def test_documents_that_are_no_files(folder: Path, name: str) -> None:
    refused(folder, ONE, name, "ask", name, "What colour?", "--model", "./model")


@pytest.mark.parametrize("stdin", ["", "  \n"])
def test_an_empty_standard_input(folder: Path, stdin: str) -> None:
    refused(
        folder, ONE, "standard input is empty", "summarize", "-", "--model", "./model", stdin=stdin
    )


@pytest.mark.parametrize(
    "command", [["read", "long.txt"], ["ask", "long.txt", "What colour?"]], ids=["read", "ask"]
)
def test_a_document_that_is_too_long_is_refused(folder: Path, command: list[str]) -> None:
    write("long.txt", b"green lamp " * 60_000)
    refused(folder, ONE, "positions", *command, "--model", "./model")


def test_a_tokenizer_without_a_chat_template(folder: Path) -> None:
    for path in Path("model").glob("*template*"):
        path.unlink()
    settings = Path("model/tokenizer_config.json")
    told = json.loads(settings.read_text())
    told.pop("chat_template", None)
    settings.write_text(json.dumps(told))
    refused(folder, ONE, "chat template", "chat", "--model", "./model", stdin="Hi\n")


def test_bad_namm_files(folder: Path) -> None:
    Namm.zeros().save("good.safetensors")
    options = ("--policy", "namm", "--namm")
    assert call(*ask(*options, "good.safetensors")).exit_code == 0
    tensors = load_file("good.safetensors")
    name, tensor = next((name, tensor) for name, tensor in tensors.items() if tensor.numel() > 100)
    save_file({**tensors, name: tensor.flatten()[:-1].clone()}, "small.safetensors")
    shutil.copy("good.safetensors", "cut.safetensors")
    cut(Path("cut.safetensors"))
    for file in ("small.safetensors", "cut.safetensors", "nowhere.safetensors"):
        refused(folder, ONE, file, *ask(*options, file))
    refused(folder, WRONG_USE, "policy namm needs a trained NAMM", *ask("--policy", "namm"))


def test_a_memory_of_a_gguf_file_with_an_adapter_brings_both_along(folder: Path) -> None:
    model = tiny_model("llama", VOCABULARY)
    write_model(folder / "tiny.gguf", model, "llama", "Q8_0")
    width = model.config.hidden_size
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    parts = {f"{name}A.weight": torch.ones(1, width), f"{name}B.weight": torch.ones(width, 1)}
    (folder / "adapter").mkdir()
    save_file(parts, folder / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    given = ("--model", "tiny.gguf", "--adapter", "adapter")
    read = call("read", "note.txt", "--name", "note", *given)
    assert read.exit_code == 0, read.output
    asked = call("ask", "note", "What is green?", "--max-tokens", "2")
    assert asked.exit_code == 0, asked.output
    other = call("ask", "note", "What is green?", "--model", "tiny.gguf")
    assert other.exit_code == ONE
    assert "was saved with the weights of" in other.stderr
    assert str(folder / "adapter") in other.stderr
