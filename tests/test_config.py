"""Every surface offers the settings of `namm_llm.config`; a wrong one is one clear line."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from namm_llm import ManagedCache, Runner, make_cache_config
from namm_llm.cli.main import COMMANDS, main, plugins
from namm_llm.config import LoadConfig, SamplingParams, Setting, settings_of
from namm_llm.errors import NammError, UsageError

EVERYTHING = settings_of("load", "run", "cache", "sampling")
LOADS_MODEL = ("load", "run", "cache")
OWN_ARGUMENTS = {"cls", "self", "model"}


def names(*groups: Any) -> set[str]:
    return {each.name for each in settings_of(*groups)}


def command_of(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


def options(command: click.Command) -> set[str]:
    return {param.name or "" for param in command.params if isinstance(param, click.Option)}


# -- the surfaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "groups"),
    [
        (Runner.load, LOADS_MODEL),
        (Runner.with_cache, ("cache",)),
        (ManagedCache.for_model, ("cache", "text")),
        (make_cache_config, ("cache", "text")),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_python_takes_all_settings_and_shows_their_defaults(function: Any, groups: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert set(parameters) - OWN_ARGUMENTS - {"chunked"} == names(*groups) - OWN_ARGUMENTS
    for each in settings_of(*groups):
        if each.name not in OWN_ARGUMENTS:
            assert parameters[each.name].default == each.default
            assert each.help in (function.__doc__ or "")


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("ask", ("load", "run", "cache", "sampling")),
        ("chat", ("load", "run", "cache", "sampling")),
        ("serve", ("load", "run", "cache", "sampling")),
        ("summarize", ("load", "run", "cache", "sampling")),
        ("read", LOADS_MODEL),
        ("inspect", LOADS_MODEL),
        ("eval", ("load",)),
    ],
)
def test_a_command_takes_all_settings(command: str, groups: Any) -> None:
    assert names(*groups) <= options(command_of(command))


@pytest.mark.parametrize("name", ["distil", "evolve", "calibrate"])
def test_training_takes_all_settings_of_a_model(name: str) -> None:
    train = command_of("train")
    assert isinstance(train, click.Group)
    assert names("load") <= options(train.commands[name])


def test_no_command_has_been_forgotten() -> None:
    """A command that loads a model by `--model` is one of those above."""
    loading = {name for name in COMMANDS if "model" in options(command_of(name))}
    assert loading == {"ask", "chat", "summarize", "read", "inspect", "serve"}


def test_langchain_takes_all_settings() -> None:
    from langchain_namm import ChatNamm, NammLLM

    for kind in (ChatNamm, NammLLM):
        assert names("load", "run", "cache", "sampling") <= set(kind.model_fields)


def test_llama_index_takes_all_settings() -> None:
    from llama_index.llms.namm import NammLLM

    assert names("load", "run", "cache", "sampling") <= set(NammLLM.model_fields)


def test_help_shows_every_option_once_with_its_default() -> None:
    command = command_of("ask")
    help_text = " ".join(command.get_help(click.Context(command)).partition("Options:")[2].split())
    for each in EVERYTHING:
        assert help_text.count(f"{each.flag} {each.metavar}".strip()) == 1, each.flag
        if each.name == "stop_loops":  # the command has a default of its own
            assert f"{each.help} [default: True]" in help_text
        elif each.name != "model":  # whose default is what is pulled
            assert " ".join(each.description.split()) in help_text, each.flag


def test_config_is_imported_without_torch() -> None:
    code = "import sys, namm_llm.config; print(sorted({'torch', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- wrong settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_cache_config(budgt=0.25), "'budgt' (did you mean budget?)"),
        (lambda: SamplingParams().override({"top": 1}), "'top' (did you mean"),
        (
            lambda: SamplingParams().override({"repeat_penalty": 1.1}),
            "'repeat_penalty' (did you mean repetition_penalty?)",
        ),
        (lambda: Runner.load(polici="h2o"), "'polici' (did you mean policy?)"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_closest_one(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def wrong_values() -> list[tuple[Setting, Any]]:
    found: list[tuple[Setting, Any]] = []
    for each in EVERYTHING:
        if each.least is not None:
            found.append((each, each.least - 1))
        if each.above is not None:
            found.append((each, each.above))
        if each.most is not None:
            found.append((each, each.most + 1))
        if each.kind in (int, float):
            found += [(each, "many"), (each, True), (each, float("nan"))]
        if each.choices:
            found.append((each, "another"))
    return found


@pytest.mark.parametrize(
    ("each", "value"), wrong_values(), ids=lambda value: getattr(value, "name", str(value))
)
def test_a_value_out_of_range_is_refused_by_name(each: Setting, value: Any) -> None:
    make: dict[str, Any] = {"sampling": SamplingParams, "load": LoadConfig, "run": LoadConfig}
    others = {} if each.group in make else {"policy": "h2o", "budget": 0.5}
    with pytest.raises(NammError, match=f"^{each.name} must be .*, not ") as caught:
        make.get(each.group, make_cache_config)(**{**others, each.name: value})
    assert "\n" not in str(caught.value)


# -- other packages --------------------------------------------------------------------------------

POLICY = """
from dataclasses import dataclass
from typing import ClassVar
from namm_llm import ScorePolicy

@dataclass(frozen=True)
class Newest(ScorePolicy):
    name: ClassVar[str] = "newest"

    def score(self, tokens):
        return tokens.positions.float()
"""
COMMAND = """
import click

@click.command()
def hello():
    click.echo("hello")
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed package with a policy and a command."""
    info = tmp_path / "newest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[namm_llm.policies]\nnewest = newest:Newest\n"
        "[namm_llm.commands]\nhello = newest_command:hello\n"
    )
    (tmp_path / "newest.py").write_text(POLICY)
    (tmp_path / "newest_command.py").write_text(COMMAND)
    return tmp_path


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_policy_of_another_package_is_known_by_its_name(package: Path) -> None:
    done = run(
        "from namm_llm import make_cache_config\n"
        "from namm_llm.policies import policy_names\n"
        "print(make_cache_config('newest', budget=8).describe(), 'newest' in policy_names())",
        package,
    )
    assert (done.stdout, done.stderr) == ("newest, budget 8, head True\n", "")


def test_a_command_of_another_package_is_listed_and_called(package: Path) -> None:
    call = "from namm_llm.cli.main import main\nmain({!r})"
    assert "hello  Of newest." in run(call.format(["--help"]), package).stdout
    assert run(call.format(["hello"]), package).stdout == "hello\n"


def test_the_lab_is_installed_with_its_commands() -> None:
    assert {"bench", "eval", "train"} <= set(plugins())


@pytest.mark.parametrize("name", ["bench", "eval", "train"])
def test_without_the_lab_its_commands_say_how_to_install_it(name: str, tmp_path: Path) -> None:
    done = run(
        f"sys.modules['namm_lab'] = None\nfrom namm_llm.cli.main import main\nmain([{name!r}])",
        tmp_path,
    )
    assert done.stdout == ""
    assert done.stderr == (
        f"Error: namm-llm {name} is part of the lab: pip install 'namm-llm[lab]'.\n"
    )
    assert done.returncode == 2


def test_a_policy_is_registered_once_under_a_name_of_its_own() -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    from namm_llm import HeadTokens, ScorePolicy, register_policy
    from namm_llm.policies import POLICIES

    @dataclass(frozen=True)
    class Oldest(ScorePolicy):
        name: ClassVar[str] = "oldest"

        def score(self, tokens: HeadTokens) -> Any:
            return -tokens.positions.float()

    @dataclass(frozen=True)
    class Other(Oldest):
        name: ClassVar[str] = "h2o"

    try:
        assert register_policy(Oldest) is Oldest
        assert make_cache_config("oldest", budget=0.5).policy == Oldest()
        with pytest.raises(UsageError, match="the policy name 'h2o' is taken by H2O"):
            register_policy(Other)
        with pytest.raises(UsageError, match="is no policy; derive it from ScorePolicy"):
            register_policy(int)  # type: ignore[type-var]
    finally:
        POLICIES.pop("oldest", None)
