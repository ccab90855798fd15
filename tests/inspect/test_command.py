"""`namm-llm inspect` on a tiny model: what is written and printed, and what users get wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_llm.cli.main import main

CACHE = ("--policy", "streaming_llm", "--budget", "0.5")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 80)
    return tmp_path


@pytest.fixture
def model(tiny_folder: Path) -> tuple[str, str]:
    return ("--model", str(tiny_folder))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("inspect", *arguments), prog_name="namm-llm")


def test_a_page_of_two_budgets(folder: Path, model: tuple[str, str]) -> None:
    done = call("note.txt", "-o", "page.html", "--versus", "0.125", *model, *CACHE)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "Wrote page.html\n")
    page = Path("page.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [side["policy"] for side in data["sides"]] == [
        "streaming_llm, budget 0.5, head",
        "streaming_llm, budget 0.125, head",
    ]
    assert "".join(data["pieces"]) == Path("note.txt").read_text()
    assert not re.search(r"https?://", page)
    assert not re.search(r"%[A-Z]+%", page)


@pytest.mark.parametrize(
    ("versus", "other"),
    [
        ("knorm", "knorm, budget 0.5, head"),
        ("knorm:0.25", "knorm, budget 0.25, head"),
        (":64", "streaming_llm, budget 64, head"),
        ("1MiB", "streaming_llm, budget 1MiB, head"),
        ("full", "full"),
    ],
)
def test_another_policy_or_budget_or_both(
    folder: Path, model: tuple[str, str], versus: str, other: str
) -> None:
    done = call("note.txt", "--json", "--versus", versus, *model, *CACHE)
    assert done.exit_code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(dict.fromkeys(row["policy"] for row in rows)) == [
        "streaming_llm, budget 0.5, head",
        other,
    ]
    assert {row["part"] for row in rows} == {"all", "layer", "head", "kind", "forgotten"}


def test_a_budget_beside_the_full_cache(folder: Path, model: tuple[str, str]) -> None:
    done = call("note.txt", "--json", "--policy", "full", "--versus", "0.25", *model)
    assert done.exit_code == 0, done.stderr
    whole = [row for row in map(json.loads, done.stdout.splitlines()) if row["part"] == "all"]
    assert [(row["policy"], row["kept"] == 1) for row in whole] == [
        ("full", True),
        ("replay, budget 0.25, model", False),
    ]


def test_without_settings_a_quarter_is_kept_and_a_pipe_gets_a_table(
    folder: Path, model: tuple[str, str]
) -> None:
    done = call("note.txt", *model)
    head, *lines = done.stdout.splitlines()
    first = dict(zip(head.split("\t"), lines[0].split("\t"), strict=True))
    assert (first["part"], first["policy"]) == ("all", "replay, budget 0.25, model")
    assert float(first["kept"]) == pytest.approx(0.25, abs=0.02)
    assert "\x1b" not in done.stdout


def test_the_terminal_s_view_is_the_document_in_colour(
    folder: Path, model: tuple[str, str]
) -> None:
    Path("note.txt").write_text("The lamp\x1b[31m is green.\x07 [red]yes[/red] \x9b2J\n" * 60)
    done = call("note.txt", "--terminal", *model, *CACHE)
    assert done.exit_code == 0, done.stderr
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    assert "\x1b[37;48;5;17m" in done.stdout or "\x1b[37;48;5;32m" in done.stdout
    assert "\x1b[90m" in done.stdout
    assert not set(plain) & {
        "\x1b",
        "\x07",
        "\x9b",
    }  # what the document would have done to the terminal
    assert "[red]yes[/red]" in plain
    assert "The lamp\u241b[31m is green.\u2407" in plain
    assert "largest forgotten spans" in plain


def test_plots(folder: Path, model: tuple[str, str]) -> None:
    done = call("note.txt", "--png", "plots.png", "--versus", "0.125", *model, *CACHE)
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert Path("plots.png").read_bytes().startswith(b"\x89PNG")


def test_a_memory_is_inspected_without_reading(folder: Path, model: tuple[str, str]) -> None:
    assert (
        CliRunner().invoke(main, ("read", "note.txt", "-o", "note.namm", *model, *CACHE)).exit_code
        == 0
    )
    read, saved = (
        call("note.txt", "--json", *model, *CACHE),
        call("note.txt", "--json", "--memory", "note.namm"),
    )
    assert saved.exit_code == 0, saved.stderr

    def without_model(lines: str) -> list[dict[str, object]]:
        return [{**json.loads(line), "model": ""} for line in lines.splitlines()]

    assert without_model(saved.stdout) == without_model(read.stdout)


def test_what_the_store_has_is_not_read_again_and_goes_by_its_name(
    folder: Path, model: tuple[str, str]
) -> None:
    assert (
        CliRunner().invoke(main, ("read", "note.txt", "--name", "fox", *model, *CACHE)).exit_code
        == 0
    )
    same, named, other = (
        call("note.txt", *model, *CACHE),
        call("note.txt", "--memory", "fox"),
        call("note.txt", *model),
    )
    assert "note.txt was read before; its memory is used: fox" in same.stderr
    assert "was read before" not in other.stderr
    assert named.stdout == same.stdout != other.stdout


def test_what_versus_does_not_name_is_as_on_the_first_side(
    folder: Path, model: tuple[str, str]
) -> None:
    read = (
        "read",
        "note.txt",
        "-o",
        "note.namm",
        *model,
        *CACHE,
        "--interval",
        "16",
        "--budget-scope",
        "layer",
    )
    assert CliRunner().invoke(main, read).exit_code == 0
    for versus, policy in (
        ("0.25", "streaming_llm, budget 0.25, layer"),
        ("knorm", "knorm, budget 0.5, head"),
    ):
        beside = call("note.txt", "--memory", "note.namm", "--versus", versus, "--json")
        name, budget = policy.split(", budget ")[0], policy.split()[2].rstrip(",")
        budget_scope = ("--budget-scope", policy.split()[-1])
        alone = call(
            "note.txt",
            "--json",
            *model,
            "--policy",
            name,
            "--budget",
            budget,
            "--interval",
            "16",
            *budget_scope,
        )
        rows = [json.loads(line) for line in beside.stdout.splitlines()]
        expected = [json.loads(line) for line in alone.stdout.splitlines()]
        assert [{**row, "model": ""} for row in rows if row["policy"] == policy] == [
            {**row, "model": ""} for row in expected
        ]


def test_several_files_are_one_document(folder: Path, model: tuple[str, str]) -> None:
    Path("two.txt").write_text("The lamp is green.")
    done = call("note.txt", "two.txt", "-o", "page.html", *model, *CACHE)
    assert done.exit_code == 0, done.stderr
    data = json.loads(
        Path("page.html").read_text().partition('id="data">')[2].partition("</script>")[0]
    )
    assert data["name"] == "note.txt, two.txt"
    assert "".join(data["pieces"]).endswith("Document: two.txt\n\nThe lamp is green.\n")


def test_mistakes_are_one_line_and_nothing_is_written(folder: Path, model: tuple[str, str]) -> None:
    assert (
        CliRunner().invoke(main, ("read", "note.txt", "-o", "note.namm", *model, *CACHE)).exit_code
        == 0
    )
    Path("other.txt").write_text("Another text.")
    before = sorted(folder.rglob("*"))
    for code, message, *arguments in (
        (
            1,
            "note.namm is no memory of other.txt: it was read from another text",
            "other.txt",
            "--memory",
            "note.namm",
        ),
        (1, "there is no memory nowhere", "note.txt", "--memory", "nowhere"),
        (
            2,
            "note.namm was read with --budget 0.5, not 0.25",
            "note.txt",
            "--memory",
            "note.namm",
            "--budget",
            "0.25",
        ),
        (2, "page.txt must end in .html, .htm", "note.txt", "-o", "page.txt"),
        (2, "plots.gif must end in .png, .svg, .pdf", "note.txt", "--png", "plots.gif"),
        (2, "nowhere/page.html cannot be written", "note.txt", "-o", "nowhere/page.html"),
        (
            2,
            "there is no policy 'keydif' (did you mean keydiff?)",
            "note.txt",
            "--versus",
            "keydif",
            "-o",
            "page.html",
        ),
        (
            2,
            "policy full keeps every token and takes no budget",
            "note.txt",
            "--versus",
            "full:0.5",
            "-o",
            "page.html",
        ),
        (2, "'0,5' is not a budget", "note.txt", "--versus", "knorm:0,5", "-o", "page.html"),
        (
            2,
            "--versus takes a POLICY, a BUDGET or POLICY:BUDGET",
            "note.txt",
            "--versus",
            ":",
            "-o",
            "page.html",
        ),
        (1, "nowhere.txt", "nowhere.txt", "-o", "page.html"),
    ):
        done = call(*arguments, *model)
        assert (done.exit_code, done.stdout) == (code, ""), (arguments, done.output)
        assert done.stderr.startswith("Error: "), done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    assert sorted(folder.rglob("*")) == before
