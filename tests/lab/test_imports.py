"""What the lab takes from the product: public names, and the inner modules of `INNER`."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

import namm_lab
import namm_llm

LAB = Path(namm_lab.__file__).parent
INNER = {
    "namm_llm.cache": "eviction events and stage times",
    "namm_llm.cli.options": "options of settings",
    "namm_llm.cli.output": "sizes as text",
    "namm_llm.cli.progress": "progress bars",
    "namm_llm.config": "defaults of settings",
    "namm_llm.documents": "texts of files",
    "namm_llm.attention.observation": "the replay that labels use",
    "namm_llm.engine": "the forward loop",
    "namm_llm.engine.repetition": "the repetition of a text",
    "namm_llm.errors": "the tree of errors",
    "namm_llm.engine.graph.decoder": "the report on a GPU",
    "namm_llm.inspect": "what a cache kept of a document",
    "namm_llm.inspect.figure": "figures",
    "namm_llm.io": "atomic files",
    "namm_llm.config.header": "settings as plain values",
    "namm_llm.models.budgets": "budgets that were measured",
    "namm_llm.models.card": "sizes of a model without its weights",
    "namm_llm.models.packed_model": "a peer's weights",
    "namm_llm.models.gguf.config": "what a GGUF file says of a model",
    "namm_llm.models.gguf": "the expanded weights of a GGUF file",
    "namm_llm.models.loading": "a model without a runner",
    "namm_llm.models.locate": "where a model's NAMM lies",
    "namm_llm.models.own_namm": "a model's own NAMM",
    "namm_llm.models.prompt": "documents as a chat",
    "namm_llm.inspect.terminal": "tables",
    "namm_llm.models.quiet": "silent libraries",
    "namm_llm.namm": "forms of NAMM",
    "namm_llm.namm.layout": "the order of parameters",
    "namm_llm.tokens": "tokens of heads",
    "namm_llm.policies": "policies by name",
    "namm_llm.policies.budget": "what a budget keeps",
}
# kvpress' worker runs in another environment, the recipe and `adapt` train; attention matrices are
# asked for in one place only
CALLS_A_MODEL = {
    "bench/peers/worker.py",
    "reports/peers/worker.py",
    "train/adapt/visible.py",
    "train/target_attention.py",
}


def modules() -> list[Path]:
    return sorted(LAB.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(LAB))


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_public_names_and_known_modules(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("namm_llm"):
            continue
        if node.module == "namm_llm":
            assert {alias.name for alias in node.names} <= set(namm_llm.__all__)
        else:
            assert node.module in INNER


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_models_are_called_by_the_forward_loop(path: Path) -> None:
    if name_of(path) in CALLS_A_MODEL or path.parent.name == "tiny":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            names = {keyword.arg for keyword in node.keywords}
            generates = isinstance(node.func, ast.Attribute) and node.func.attr == "generate"
            assert "past_key_values" not in names or generates


@pytest.mark.parametrize("name", ["bench", "eval", "train"])
def test_commands_are_plug_ins(name: str) -> None:
    (point,) = entry_points(group="namm_llm.commands", name=name)
    command = point.load()
    assert isinstance(command, click.Command)
    assert command.name == name
