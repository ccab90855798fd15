"""What is forgotten: which kinds of tokens, and in which layers, an eviction policy keeps of
documents that it was not made on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from namm_lab.reports.labelled import TEXTS, Labelled
from namm_lab.rows import Row
from namm_llm import Document, Runner, kept_entries

LAYERS = 8  # of a model, at most, that stand in the table of all parts


def compare(
    *,
    model: str,
    policies: Sequence[str],
    budgets: Sequence[str],
    length: int,
    documents: int,
    texts: Sequence[str] = ("prose", "code"),
    folder: str | os.PathLike[str] | None = None,
) -> list[Row]:
    """One row for each text, policy, budget and part, which is a kind of token, a layer, or all
    tokens; over all documents.

    kept: share of the entries of those tokens, one in each KV head of each layer. anywhere: share
    of the tokens that still have an entry. policies: their names; what the model does without one
    is added. texts: names in `TEXTS`. folder: of texts, instead of what Python brings along.
    """
    runner = Runner.load(model)
    default = runner.with_cache(budget=budgets[0]).config.policy.name
    rows = []
    for name in texts:
        drawn = TEXTS[name](lambda text: len(runner.encode(text)), length, documents, folder)
        for policy in dict.fromkeys((default, *policies)):
            for budget in budgets:
                rows += _rows(runner.with_cache(policy, budget=budget), name, drawn)
    return rows


def side_by_side(rows: Sequence[Row]) -> list[Row]:
    """One row for each model, text and part, without the layers of deep models; a column `kept ·
    anywhere` for each policy and budget.
    """
    columns = dict.fromkeys(f"{row['policy']} {row['budget']}" for row in rows)
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if _is_layer(row) and is_deep(rows, row["model"]):
            continue
        first = {name: row[name] for name in ("model", "text", "part", "tokens")}
        line = found.setdefault(
            (row["model"], row["text"], row["part"]), first | dict.fromkeys(columns)
        )
        line[f"{row['policy']} {row['budget']}"] = f"{row['kept']:.2f} · {row['anywhere']:.2f}"
    return list(found.values())


def is_deep(rows: Sequence[Row], model: str) -> bool:
    """Whether a model has more layers than `LAYERS`."""
    return any(_is_layer(row, LAYERS + 1) for row in rows if row["model"] == model)


def by_layer(rows: Sequence[Row], model: str) -> list[Row]:
    """One row for each layer of a model; a column with the share kept for each text, policy and
    budget.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row["model"] == model and _is_layer(row):
            line = found.setdefault(row["part"], {"layer": row["part"].removeprefix("layer ")})
            line[f"{row['text']}, {row['policy']} {row['budget']}"] = f"{row['kept']:.2f}"
    return list(found.values())


# -- what is kept ----------------------------------------------------------------------------------


def _rows(runner: Runner, text: str, documents: Sequence[Labelled]) -> list[Row]:
    kinds, kept = list[str](), list[Tensor]()
    for document in documents:
        spans = runner.loaded.backend.encode(document.text, add_special_tokens=False).offsets
        kinds += [_token_kind(document, start, end) for start, end in spans]
        kept.append(document_shares(runner, document.text, len(spans)))
    shares = torch.cat(kept, 1)
    parts = {"all": shares}
    parts |= {
        kind: shares[:, [found == kind for found in kinds]] for kind in sorted(set(kinds) - {""})
    }
    parts |= {f"layer {number}": layer[None] for number, layer in enumerate(shares, 1)}
    setting = {
        "model": runner.model_id,
        "policy": runner.config.policy.name,
        "budget": str(runner.config.budget),
    }
    common = {
        "text": text,
        **setting,
        "budget_scope": runner.config.budget_scope,
        "documents": len(documents),
    }
    return [
        {**common, "part": part, "tokens": share.shape[1], **_figures(share)}
        for part, share in parts.items()
    ]


def _is_layer(row: Row, least: int = 1) -> bool:
    kind, _, number = row["part"].partition(" ")
    return bool(kind == "layer" and int(number) >= least)


def _figures(shares: Tensor) -> Row:
    """Of `[layers, tokens]`."""
    return {"kept": float(shares.mean()), "anywhere": float(shares.gt(0).any(0).float().mean())}


def _token_kind(document: Labelled, start: int, end: int) -> str:
    """The kind of its first character that is no white space: a word's token brings the space
    before it along.
    """
    return next(
        (
            kind
            for at, kind in enumerate(document.kinds[start:end], start)
            if not document.text[at].isspace()
        ),
        "white space",
    )


def document_shares(runner: Runner, text: str, tokens: int) -> Tensor:
    """`kept_shares` of the text's own `tokens` after it was read: what stands before it is never
    evicted, and is not part of it.
    """
    return kept_shares(runner.read(text))[:, -tokens:]


def kept_shares(memory: Document) -> Tensor:
    """Share of the KV heads of each layer that still hold a token: `[layers, tokens seen]`."""
    return kept_entries(memory.cache).float().mean(1)
