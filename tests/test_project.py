"""The shape of the project: part order, public names, light imports, the README's tree, what no
file may hold, one place for defaults.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

import namm_llm
from namm_llm import Runner
from namm_llm.cli.chat.sessions import sessions_folder, write_record
from namm_llm.cli.main import COMMANDS, main
from namm_llm.documents import MemoryStore

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "namm_llm"
LEFT_OUT = {"__pycache__", "build", "dist"}


def part_order() -> list[str]:
    """The order as docs/architecture.md states it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(r"`(errors · [^`]+)`", text)
    assert found is not None
    return found[1].replace("\n", " ").split(" · ")


def modules() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE or not path.name.startswith("__")
    )


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of namm_llm that a module imports, inside functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "namm_llm":
                names = [
                    f"namm_llm.{alias.name}"
                    for alias in node.names
                    if not alias.name.startswith("__")
                ]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("namm_llm.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_parts_before_it(path: Path) -> None:
    order = part_order()
    part = part_of(path)
    allowed = set(order[: order.index(part) + 1])
    assert imported(path) <= allowed, f"{part} may import {sorted(allowed)}"


def outside() -> list[Path]:
    folders = ("examples", "integrations", "benchmarks")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", outside(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_stands_outside_uses_public_names_only(path: Path) -> None:
    assert imported(path) <= set(namm_llm.__all__)


def test_exported_names_exist() -> None:
    for name in namm_llm.__all__:
        assert getattr(namm_llm, name) is not None
    assert dir(namm_llm) == sorted(namm_llm.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Llama'"):
        _ = namm_llm.Llama


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; import namm_llm.cli.main as cli\n"
        f"try: cli.main([*{arguments!r}, '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'transformers', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == "[]\n"


def test_what_is_kept_is_listed_without_torch(tiny_folder: Path) -> None:
    MemoryStore().put(
        "0123456789abcdef", Runner.load(tiny_folder).read("The lamp is green."), name="note"
    )
    write_record(sessions_folder() / "talk.json", {"options": {}, "conversation": {"turns": []}})
    code = (
        "import sys; import namm_llm.cli.main as cli\n"
        "for command in (['documents', 'list'], ['documents', 'forget', 'note'], ['chat', '--list']):\n"
        "    try: cli.main(command)\n"
        "    except SystemExit as end: assert not end.code\n"
        "    print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, *found = done.stdout.splitlines()
    assert listed.startswith("note\t0123456789abcdef\t")
    assert "Forgot note" in done.stderr
    assert [found[0], found[1], found[3]] == ["[]"] * 3
    assert found[2].startswith("talk ")


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    block = re.search(r"```\n(namm_llm/\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    stated = [
        line.split()[0].rstrip("/") if line[0] != " " else "  " + line.split()[0].rstrip("/")
        for line in block[1].splitlines()
    ]
    parts = [
        path.name
        for path in PACKAGE.iterdir()
        if path.name not in LEFT_OUT and not path.name.startswith(("__", "py."))
    ]
    folders = [
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in LEFT_OUT and path.name[0] != "."
    ]
    assert sorted(stated) == sorted([*(f"  {name}" for name in parts), *folders])
    order = part_order()
    rows = [name.strip().removesuffix(".py") for name in stated if name.startswith("  ")]
    in_order = [name for name in rows if name in order]
    assert in_order == sorted(in_order, key=order.index)


def text_files() -> list[Path]:
    suffixes = {".py", ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".cfg", ".sh", ""}
    folders = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in LEFT_OUT and path.name[0] != "."
    ]
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [
        path for folder in [*folders, ROOT / ".ci"] for path in folder.rglob("*") if path.is_file()
    ]
    return [path for path in files if path.suffix in suffixes and not LEFT_OUT & set(path.parts)]


def test_no_file_names_a_machine_or_an_index() -> None:
    machine = re.compile(
        r"(?:^|[^A-Za-z0-9_.~-])/(?:work|root|home|tmp|opt|Users|farm)/\w|pypi\.org|files\.pythonhosted"
    )
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert hits == []


def test_constraints_pin_every_package_and_name_no_build() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(
            r'[\w.-]+==[\w.]+(; python_version >= "3\.1\d")?', line
        ), line


def test_the_command_line_writes_no_default_of_its_own() -> None:
    """An option that was not given is not passed on; the help page's text agrees with where the
    default is.
    """
    from namm_llm import Runner, SamplingParams

    real = {
        name: parameter.default
        for name, parameter in inspect.signature(Runner.load).parameters.items()
    }
    real |= {field.name: field.default for field in fields(SamplingParams)}
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            assert option.to_info_dict()["default"] in (None, False), f"{name} --{option.name}"
            stated = re.search(r"\[default: ([^]]+)\]", option.help or "")
            if option.name in real and real[option.name] is not None:
                assert stated is not None, f"{name} --{option.name} does not state its default"
                assert (
                    stated[1] == f"{real[option.name]:g}"
                    if isinstance(real[option.name], float)
                    else str(real[option.name])
                )


def test_the_demo_uses_names_that_the_bundled_model_was_not_trained_on() -> None:
    from examples.demo import FIRST, SECOND
    from namm_lab.tasks.words import split_of

    assert {word: split_of(word) for word in FIRST + SECOND if split_of(word) == "train"} == {}
