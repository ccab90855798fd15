"""The shape of the project: which part imports which, where a model is called and where tokens
leave, what can be taken away, how large things are.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import namm_llm
from namm_llm import Runner
from namm_llm.cli.chat.sessions import sessions_folder, write_record
from namm_llm.cli.main import COMMANDS
from namm_llm.documents import MemoryStore
from namm_llm.errors import NammError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, LAB = ROOT / "namm_llm", ROOT / "namm_lab"
LEFT_OUT = {"__pycache__", "build", "dist", "site"}
# each part imports only those before it
ORDER = (
    "errors version io pages tokens native attention namm policies config cache models documents "
    "engine document saving conversation runner summaries inspect server cli"
).split()
GRAPH = "namm_llm.engine.graph"

# -- what imports what -----------------------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """All modules of namm_llm by their name."""
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """What a file imports of namm_llm and namm_lab: inside functions, for type checking and by
    dunder names too. A name that is no module stands for the module that it is taken from.
    """
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module or "" for name in names}
    return {name for name in found if name.partition(".")[0] in ("namm_llm", "namm_lab")}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def inner_modules() -> list[str]:
    """All modules but the package itself and its `__main__`, which may import everything."""
    return [name for name in modules() if part_of(name) in ORDER]


def test_every_module_belongs_to_a_part() -> None:
    assert set(modules()) - set(inner_modules()) == {"namm_llm", "namm_llm.__main__"}


@pytest.mark.parametrize("module", inner_modules())
def test_a_part_imports_only_parts_before_it(module: str) -> None:
    allowed = set(ORDER[: ORDER.index(part_of(module)) + 1])
    found = {name for name in imported(modules()[module]) if part_of(name) not in allowed}
    assert found == set(), f"{part_of(module)} may import {sorted(allowed)}"


def test_the_document_of_the_architecture_states_this_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    stated = re.search(r"`(errors · [^`]+)`", text)
    assert stated is not None
    assert stated[1].split(" · ") == ORDER


def test_no_module_imports_itself_on_any_way() -> None:
    graph = {name: imported(modules()[name]) & set(modules()) - {name} for name in inner_modules()}
    list(TopologicalSorter(graph).static_order())  # CycleError names the modules of a circle


def test_the_engine_has_six_levels_at_most() -> None:
    engine = {
        name: imported(modules()[name])
        for name in inner_modules()
        if part_of(name) == "engine" and not name.startswith(GRAPH)
    }

    def level(name: str) -> int:
        return 1 + max((level(other) for other in engine[name] & set(engine)), default=0)

    assert max(map(level, engine)) <= 6


def outside() -> list[Path]:
    folders = (ROOT / "examples", ROOT / "integrations")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


@pytest.mark.parametrize("path", outside(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_stands_outside_uses_public_names_only(path: Path) -> None:
    found = {name for name in imported(path) if name.startswith("namm_llm.")}
    public = {f"namm_llm.{name}" for name in namm_llm.__all__}
    assert found <= public


def test_exported_names_exist() -> None:
    for name in namm_llm.__all__:
        assert getattr(namm_llm, name) is not None
    assert dir(namm_llm) == sorted(namm_llm.__all__)
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {node.names[0].name: node.module for node in imports} == namm_llm._HOME
    with pytest.raises(AttributeError, match="has no attribute 'Llama'"):
        _ = namm_llm.Llama


# -- one place for each thing ----------------------------------------------------------------------

# these measure other programs, or train; everything else goes through engine/forward.py
CALL_MODELS = {
    "namm_llm/engine/forward.py",
    "namm_lab/bench/contenders.py",
    "namm_lab/bench/peers/worker.py",
    "namm_lab/decision/training.py",
    "namm_lab/film/train.py",
    "namm_lab/reports/peers/worker.py",
    "namm_lab/tiny/evaluate.py",
    "namm_lab/tiny/trainer.py",
    "namm_lab/train/adapt/visible.py",
}


def model_calls(path: Path) -> Iterator[str]:
    """Calls of something named model, or of its `forward` or `generate`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if re.search(r"(^model|\._?model)(\.(forward|generate|__call__))?$", called):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"


def test_only_engine_forward_calls_a_model() -> None:
    files = [*PACKAGE.rglob("*.py"), *LAB.rglob("*.py")]
    calls = [call for path in files for call in model_calls(path)]
    assert {call.rpartition(":")[0] for call in calls} == CALL_MODELS


def test_tokens_leave_only_in_cache_update() -> None:
    """The retained tokens of a sequence are replaced in one place."""
    assigned = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules().values()
        if re.search(r"\.retained\s*=[^=]|backend\.gather\(", path.read_text(encoding="utf-8"))
    }
    assert assigned == {"cache/update.py"}


# -- what can be taken away ------------------------------------------------------------------------


def run_without(hidden: Sequence[str], code: str) -> str:
    """What a program prints that finds no modules with these names."""
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if (name + '.').startswith({tuple(each + '.' for each in hidden)!r}):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


ANSWER = (
    "from namm_llm import Runner\n"
    "runner = Runner.load('namm-tiny', device='cpu')\n"
    "print(runner.decoding)\n"
    "print(runner.generate('The', max_tokens=3).usage.output_tokens)\n"
)


def test_the_product_works_without_the_lab_and_langchain() -> None:
    others = ("__main__", "server.ray")  # which runs, and which needs Ray
    names = [name for name in modules() if "triton" not in name and not name.endswith(others)]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)\n"
    code += "try: import langchain_namm\nexcept ImportError as error: print(error)\n"
    told, _, tokens = run_without(["namm_lab", "langchain_core"], code + ANSWER).splitlines()
    assert told == "langchain_namm needs LangChain: pip install 'namm-llm[langchain]'"
    assert tokens == "3"


def test_cuda_graphs_can_be_deleted() -> None:
    insisting = ANSWER.replace("device='cpu'", "device='cpu', cuda_graphs='eager'").replace(
        "runner = ", "try: runner = "
    )
    refused = insisting.partition("\nprint")[0] + "\nexcept Exception as error: print(error)\n"
    plain, tokens, refusal = run_without([GRAPH], ANSWER + refused).splitlines()
    assert plain == f"plain calls: this installation has no {GRAPH}"
    assert tokens == "3"
    assert refusal == (
        f"namm-tiny cannot be decoded with cuda_graphs='eager': this installation has no {GRAPH}; "
        "leave cuda_graphs out."
    )


def test_nothing_but_their_own_tests_imports_cuda_graphs() -> None:
    own = (PACKAGE / "engine" / "graph", ROOT / "tests" / "engine" / "graph")
    folders = (PACKAGE, LAB, ROOT / "integrations", ROOT / "examples", ROOT / "tests")
    users = [
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in folder.rglob("*.py")
        if not any(parent in own for parent in path.parents)
        and any(name.startswith(GRAPH) for name in top_level_imports(path))
    ]
    assert users == []


def top_level_imports(path: Path) -> set[str]:
    """Modules that are imported as soon as this one is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}


# -- imports that cost -----------------------------------------------------------------------------


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
    commands = [["documents", "list"], ["documents", "forget", "note"], ["chat", "--list"]]
    code = (
        "import sys; import namm_llm.cli.main as cli\n"
        f"for command in {commands!r}:\n"
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


# -- sizes -----------------------------------------------------------------------------------------


def source_files() -> list[Path]:
    folders = (PACKAGE, LAB, ROOT / "integrations", ROOT / "examples", ROOT / "tests")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_the_product_stays_small() -> None:
    server = {name: path for name, path in modules().items() if ".server" in name}
    assert (
        sum(map(code_lines, modules().values())) - sum(map(code_lines, server.values())) <= 18_200
    )
    assert sum(map(code_lines, server.values())) <= 1_950


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    text = path.read_text(encoding="utf-8")
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            held |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            held -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(held)


def test_no_file_has_more_than_300_lines() -> None:
    product = [path for path in source_files() if ROOT / "tests" not in path.parents]
    assert [str(path) for path in product if len(lines_of(path)) > 300] == []


def test_the_runner_is_a_facade() -> None:
    assert len(lines_of(PACKAGE / "runner.py")) <= 250


def test_nearly_every_function_has_less_than_35_lines() -> None:
    sizes = [size for path in modules().values() for size in function_sizes(path)]
    assert sum(size < 35 for size in sizes) >= 0.99 * len(sizes)


def function_sizes(path: Path) -> Iterator[int]:
    """Lines of each function without its docstring, decorators included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            text = node.body[0] if ast.get_docstring(node) is not None else None
            described = 0 if text is None else (text.end_lineno or 0) - text.lineno + 1
            yield (node.end_lineno or 0) - first + 1 - described


def test_lines_have_100_columns_at_most() -> None:
    pragma = re.compile(r"  # (type: ignore|noqa).*$")
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files()
        for number, line in enumerate(lines_of(path), 1)
        if len(pragma.sub("", line)) > 100
    ]
    assert wide == []


# -- what files say --------------------------------------------------------------------------------


def raised_messages(path: Path) -> Iterator[tuple[int, str]]:
    """The last words of every message that is written where a NammError is raised."""
    kinds = {each.__name__ for each in all_errors(NammError)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in kinds
            and node.args
        ):
            message = node.args[0]
            if isinstance(message, ast.JoinedStr):
                message = message.values[-1]
            if isinstance(message, ast.Constant) and isinstance(message.value, str):
                yield node.lineno, message.value


def all_errors(kind: type[NammError]) -> set[type[NammError]]:
    return {kind}.union(*(all_errors(each) for each in kind.__subclasses__()))


def test_a_message_of_an_error_ends_with_a_full_stop() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{line}: {text[-40:]}"
        for path in [*modules().values(), *LAB.rglob("*.py")]
        for line, text in raised_messages(path)
        if not text.endswith(".")
    ]
    assert bare == []


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


def text_files() -> list[Path]:
    suffixes = {".py", ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".cfg", ".sh", ""}
    folders = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in LEFT_OUT and path.name[0] != "."
    ]
    # a linked worktree has a file .git, which git alone writes
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    files += [
        path for folder in [*folders, ROOT / ".ci"] for path in folder.rglob("*") if path.is_file()
    ]
    return [path for path in files if path.suffix in suffixes and not LEFT_OUT & set(path.parts)]


def test_no_file_names_a_machine_or_an_index() -> None:
    folders = "work|root|home|tmp|opt|Users|farm"
    machine = re.compile(rf"(?:^|[^A-Za-z0-9_.~-])/(?:{folders})/\w|pypi\.org|files\.pythonhosted")
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert hits == []


def test_constraints_pin_every_package_and_name_no_build() -> None:
    pinned = re.compile(r'[\w.-]+==[\w.]+(; python_version >= "3\.1\d")?')
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or pinned.fullmatch(line), line


def test_the_demo_uses_names_that_the_bundled_model_was_not_trained_on() -> None:
    from examples.demo import FIRST, SECOND
    from namm_lab.tasks.words import split_of

    assert {word: split_of(word) for word in FIRST + SECOND if split_of(word) == "train"} == {}
