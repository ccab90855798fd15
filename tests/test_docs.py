"""The documents: links, the navigation, the log, the words, generated pages, and the quickstart,
whose commands are run.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml
from click.testing import CliRunner

import namm_llm
from namm_llm.cli.main import main
from namm_llm.policies import POLICIES, registry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
MADE = re.compile(r"<!-- table: \w+ -->.*?<!-- end -->", re.DOTALL)  # by namm_lab.reports
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
OLD_WORDS = re.compile(r"\b(reread|compete|settled|judgement)\b", re.IGNORECASE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """The page without its code blocks and tables."""
    text = MADE.sub("", FENCE.sub("", path.read_text(encoding="utf-8")))
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("|"))


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated(hooks: ModuleType) -> list[str]:
    """The pages that exist on the site only."""
    return ["cli.md", *(f"api/{name}.md" for name in hooks.API_PAGES)]


def navigation(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for value in entry.values():
                yield from navigation(value if isinstance(value, list) else [value])


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", t).strip().lower()) for t in titles}


def test_links_lead_somewhere(hooks: ModuleType) -> None:
    made = {(DOCS / page).resolve() for page in generated(hooks)}
    broken = []
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            page, _, anchor = target.partition("#")
            file = (path.parent / page).resolve() if page else path
            if file in made or (file.exists() and (not anchor or anchor in anchors(file))):
                continue
            broken.append(f"{name_of(path)}: {target}")
    assert broken == []


def test_one_sentence_a_line() -> None:
    hits = []
    for path in PAGES:
        text = re.sub(r"`[^`\n]*`|\"[^\"\n]*\"", "x", prose(path))
        found = re.findall(r"^.*[a-z)\]*%x][.!?] [A-Z].*$", text, re.MULTILINE)
        hits += [f"{name_of(path)}: {line}" for line in found]
    assert hits == []


def test_the_words_of_the_glossary() -> None:
    hits = [
        f"{name_of(path)}: {word}"
        for path in PAGES
        for word in OLD_WORDS.findall(path.read_text(encoding="utf-8"))
    ]
    assert hits == []


def test_a_paragraph_of_the_readme_has_four_lines_at_most() -> None:
    paragraphs = re.split(r"\n\s*\n", prose(ROOT / "README.md"))
    long = [p for p in paragraphs if p.count("\n") > 3 and not p.lstrip().startswith(("-", "#"))]
    assert long == []


def test_every_page_is_in_the_navigation_once(hooks: ModuleType) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    found = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(navigation(config["nav"])) == sorted([*found, *generated(hooks)])


def test_the_log_lists_its_entries_newest_first() -> None:
    index = (DOCS / "log" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| \[(.+)\]\((\S+)\.md\) \|$", index, re.MULTILINE)
    entries = {path.stem: path for path in (DOCS / "log").glob("2*.md")}
    assert sorted(stem for _, _, stem in rows) == sorted(entries)
    assert [date for date, _, _ in rows] == sorted((date for date, _, _ in rows), reverse=True)
    for date, title, stem in rows:
        text = entries[stem].read_text(encoding="utf-8")
        assert stem.startswith(date)
        assert text.startswith(f"# {title}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Question", "Result", "Decision"]


def test_the_table_of_policies_is_the_registry() -> None:
    text = (DOCS / "policies.md").read_text(encoding="utf-8")
    table = text.split("## Policies\n", 1)[1].split("\n## ", 1)[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(POLICIES)


def leaves(command: click.Command, name: str = "namm-llm") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from leaves(found, f"{name} {child}")


def test_the_command_line_page_has_every_command_and_option(hooks: ModuleType) -> None:
    page = hooks.cli_page(main)
    for name, command in leaves(main):
        section = page.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
        assert f"Usage: {name} " in section
        options = [option for option in command.params if isinstance(option, click.Option)]
        for option in options:
            assert max(option.opts, key=len) in section, f"{name} {option.name}"


def test_the_api_pages_have_every_public_name_once(hooks: ModuleType) -> None:
    directives = re.findall(r"^::: namm_llm\.(\w+)$", "\n".join(hooks.api_pages().values()), re.M)
    assert sorted(directives) == sorted(set(namm_llm.__all__) - {"__version__"})


def rounded(text: str) -> list[str]:
    """The lines, without what changes from run to run: speeds, seconds, dates and folders."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", text)
    text = re.sub(r"\d+\.\d+(e-\d+)?", "N", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "ID", text)
    text = re.sub(r", in \S+/memories", ", in FOLDER", text)
    return sorted(line for line in text.splitlines() if line)


def test_the_quickstart_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)  # nothing is piped in
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|console|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for number, (kind, block) in enumerate(blocks):
        if kind == "console":
            command, shown = block.removeprefix("$ ").split("\n", 1)
            name, *arguments = shlex.split(command)
            assert name == "namm-llm"
            result = CliRunner().invoke(main, arguments, prog_name=name, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            assert set(rounded(result.stdout)) <= set(rounded(shown))
            assert set(rounded(shown)) <= set(rounded(result.output))
        elif kind == "python" and "meta-llama" not in block:
            capsys.readouterr()
            exec(compile(block, f"quickstart.md, block {number}", "exec"), {})
            kind_next, shown = blocks[number + 1]
            printed = capsys.readouterr().out
            assert printed == (shown if kind_next == "text" else "")


def test_the_policies_of_the_tutorial_evict(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "POLICIES", dict(registry.POLICIES))
    text = (DOCS / "write-a-policy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(block for block in blocks if "@register_policy" in block):
        names = {"__name__": f"tutorial_{number}"}
        monkeypatch.setitem(sys.modules, names["__name__"], ModuleType(names["__name__"]))
        exec(compile(block, f"write-a-policy.md, block {number}", "exec"), names)
    added = sorted(set(registry.POLICIES) - set(POLICIES))
    assert added == ["long_values", "most_attention"]
    for name in added:
        runner = namm_llm.Runner.load(tiny_folder, policy=name, budget=16, interval=32)
        assert runner.read("The lamp is green. " * 40).info()["stored_tokens"] == 16
