"""Fidelity to the full cache on a folder of texts, and the budget that is kept for `auto`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from namm_lab.evaluate import Evaluation
from namm_lab.evaluate.fidelity import KEY, measure_fidelity, split_documents, summary
from namm_lab.rows import RowFile
from namm_llm import BudgetError, Namm, Runner, UsageError
from namm_llm.cli.main import main
from namm_llm.models.budgets import keep_budget


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    text = " ".join(f"The vault {n} holds {n * 7919 % 1000} coins and a fox." for n in range(60))
    (path / "vaults.txt").write_text(text)
    return path


@pytest.fixture(scope="module")
def runner(tiny_folder):
    return Runner.load(tiny_folder, prefix_caches=0)


def plan(folder, **more) -> Evaluation:
    fields = {"lengths": (200,), "samples": 2, "interval": 64, "policies": ("replay",)}
    return Evaluation(texts=str(folder), **{**fields, **more})


def measured(runner, asked: Evaluation, **more):
    return measure_fidelity(runner, asked, asked.settings()[1:], **more)


def test_all_tokens_are_the_full_cache_and_few_are_not(runner, folder):
    whole, few = measured(runner, plan(folder, budgets=("1.0", "0.05"), samples=1))
    assert whole["fidelity"] == whole["answer"] == 1.0
    assert whole["kl"] < 1e-3
    assert abs(whole["log_perplexity"]) < 1e-2
    assert few["fidelity"] < 1.0
    assert few["kl"] > whole["kl"]
    assert few["kept_fraction"] < 0.1


def test_documents_do_not_overlap_and_go_on(runner, folder):
    text = (folder / "vaults.txt").read_text()
    documents = split_documents(runner, str(folder), 200)
    assert len(documents) > 2
    at = 0
    for document, following in documents:
        assert text[at:].startswith(document + following)
        at += len(document + following)
    with pytest.raises(UsageError, match="has no text of 50128 tokens, the longest has"):
        split_documents(runner, str(folder), 50_000)


def test_what_was_measured_is_not_measured_again(runner, folder, tmp_path):
    file = RowFile(tmp_path / "rows.jsonl", KEY)
    first = measured(runner, plan(folder, budgets=("0.25",)), file=file)
    seconds = len(file.path.read_text().splitlines())
    again = measured(runner, plan(folder, budgets=("0.25",)), file=RowFile(file.path, KEY))
    assert again == first
    assert len(file.path.read_text().splitlines()) == seconds == 2
    low, high = (summary(first)[name] for name in ("low", "high"))
    assert low <= summary(first)["fidelity"] <= high


def test_the_command_measures_recommends_and_keeps(tiny_folder, folder, tmp_path, home):
    arguments = [
        "eval", "--model", str(tiny_folder), "--texts", str(folder), "--lengths", "60",
        "--interval", "64", "--policies", "streaming_llm", "--budgets", "1.0",
        "--plot", str(tmp_path / "plot.png"), "--json", str(tmp_path / "rows.jsonl"),
    ]  # fmt: skip
    few = CliRunner().invoke(main, [*arguments, "--samples", "2", "--recommend", "0.5"])
    assert few.exit_code == 0, few.output
    assert "2 documents are too few for fidelity 0.5 at 95% confidence: about" in few.output
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert not (home / "budgets.json").exists()
    many = CliRunner().invoke(main, [*arguments, "--samples", "9", "--recommend", "0.5"])
    assert "streaming_llm, head: budget 1.0 keeps fidelity 0.5 at 95% confidence" in many.output
    (kept,) = json.loads((home / "budgets.json").read_text()).values()
    assert kept == {"budget": "1.0", "said": "auto: fidelity 0.5 at 95% confidence"}


def test_a_namm_that_ships_for_the_model_is_measured_too(
    tiny_folder, folder, tmp_path, home, monkeypatch
):
    """As that of SmolLM2, which does not lie beside the weights."""
    Namm.zeros().save(shipped := tmp_path / "shipped.safetensors")
    monkeypatch.setattr("namm_llm.models.own_namm.own_namm", lambda name: shipped)
    options = ["--lengths", "60", "--samples", "1", "--interval", "32", "--budgets", "0.5"]
    command = ["eval", "--model", str(tiny_folder), "--texts", str(folder), *options]
    done = CliRunner().invoke(main, [*command, "--policies", "namm"])
    assert done.exit_code == 0, done.output
    assert "namm" in done.stdout


def test_auto_is_the_kept_budget_and_is_said(runner, tiny_folder):
    with pytest.raises(BudgetError, match=r"no budget was measured for .* with the policy replay"):
        Runner.load(tiny_folder, policy="replay", budget="auto")
    of = runner.with_cache("replay", budget=0.5)
    keep_budget(runner.fingerprint, of.config, "0.25", "auto: fidelity 0.9 at 95% confidence")
    auto = Runner.load(tiny_folder, policy="replay", budget="auto")
    assert auto.config.budget.tokens(100, None) == 25
    document = auto.read("The vault holds coins. " * 40)
    said = "replay, budget 0.25 (auto: fidelity 0.9 at 95% confidence), model"
    assert document.info()["policy"] == said
    with pytest.raises(BudgetError, match="with the policy keydiff"):
        runner.with_cache("keydiff", budget="auto")


def test_a_memory_read_with_auto_opens_again(runner, tiny_folder, tmp_path):
    keep_budget(runner.fingerprint, runner.with_cache("replay", budget=0.5).config, "0.25", "auto")
    auto = Runner.load(tiny_folder, policy="replay", budget="auto")
    auto.read("The vault holds coins. " * 40).save(tmp_path / "memory")
    assert runner.open(tmp_path / "memory").cache.config.budget.tokens(100, None) == 25


def test_recommending_needs_texts(tiny_folder):
    result = CliRunner().invoke(main, ["eval", "--model", str(tiny_folder), "--recommend", "0.9"])
    assert result.exit_code == 2
    assert "--recommend goes by fidelity: give --texts FOLDER" in result.output
