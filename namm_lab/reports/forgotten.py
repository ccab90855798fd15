"""What is forgotten: which kinds of tokens, and in which layers, an eviction policy keeps of
documents that it was not made on.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from namm_lab.rows import Row
from namm_lab.tasks import draw_samples
from namm_llm import Document, Runner, UsageError, kept_entries

PROSE, CODE = "prose", "code"
FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for from with as and or but not if "
    "is are be was has it its this that which can".split()
)
_PARTS = re.compile(r"(?P<space>\s+)|(?P<number>\d+)|(?P<word>[^\W\d_]+)|(?P<mark>.)", re.DOTALL)
_STATED = re.compile(r"The .+? of (?:the )?(?P<name>.+) is (?P<value>\d+)\.")
_TOP_LEVEL = re.compile(r"^(?:def|class) ", re.MULTILINE)
_FACT_IN_CODE = re.compile(r"^# .+ is \d+\.$", re.MULTILINE)


@dataclass(frozen=True)
class Labelled:
    """A document, and the kind of each of its characters; "" where it cannot be told, which is not
    counted.
    """

    text: str
    kinds: list[str]


def compare(
    *, model: str, policies: Sequence[str], budgets: Sequence[str], length: int, documents: int
) -> list[Row]:
    """One row for each text, policy, budget and part, which is a kind of token, a layer, or all
    tokens; over all documents.

    kept: share of the entries of those tokens, one in each KV head of each layer. anywhere: share
    of the tokens that still have an entry. policies: their names; what the model does without one
    is added.
    """
    runner = Runner.load(model)
    default = runner.with_cache(budget=budgets[0]).config.policy.name
    rows = []
    for name, draw in ((PROSE, prose_documents), (CODE, code_documents)):
        drawn = draw(lambda text: len(runner.encode(text)), length, documents)
        for policy in dict.fromkeys((default, *policies)):
            for budget in budgets:
                rows += _rows(runner.with_cache(policy, budget=budget), name, drawn)
    return rows


def side_by_side(rows: Sequence[Row]) -> list[Row]:
    """One row for each text and part; a column `kept · anywhere` for each policy and budget."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        line = found.setdefault(
            (row["text"], row["part"]), {name: row[name] for name in ("text", "part", "tokens")}
        )
        line[f"{row['policy']} {row['budget']}"] = f"{row['kept']:.2f} · {row['anywhere']:.2f}"
    return list(found.values())


# -- documents -------------------------------------------------------------------------------------


def prose_documents(
    count_tokens: Callable[[str], int], length: int, documents: int
) -> list[Labelled]:
    """Documents of the task `fact` in prose, every stated fact known by its question."""
    found, drawn = list[Labelled](), documents
    while len(found) < documents:
        drawn *= 2  # some come in code
        samples = draw_samples(
            "fact",
            length,
            count=drawn,
            count_tokens=count_tokens,
            questions=max(3, -(-length // 128)),
        )
        prose = [sample for sample in samples if not _FACT_IN_CODE.search(sample.document)]
        found = [
            Labelled(
                sample.document,
                prose_kinds(sample.document, [question.answer for question in sample.questions]),
            )
            for sample in prose[:documents]
        ]
    return found


def code_documents(
    count_tokens: Callable[[str], int], length: int, documents: int
) -> list[Labelled]:
    """Code of Python's library from its first function or class on, so that no document begins
    within a string.
    """
    samples = draw_samples(
        "code", length, count=2 * documents, count_tokens=count_tokens
    )  # some hold nothing but data
    texts = [
        sample.document[start.start() :]
        for sample in samples
        if (start := _TOP_LEVEL.search(sample.document))
    ]
    if len(texts) < documents:
        raise UsageError(
            f"{length} tokens of code are too few to hold a function each time; ask for more."
        )
    return [Labelled(text, code_kinds(text)) for text in texts[:documents]]


# -- kinds -----------------------------------------------------------------------------------------


def prose_kinds(text: str, answers: Sequence[str]) -> list[str]:
    """The kind of each character. answers: `The KIND of NAME is VALUE.` for each stated fact."""
    kinds = [""] * len(text)
    for part in _PARTS.finditer(text):
        _paint(kinds, part.start(), part.end(), _prose_kind(part))
    for answer in answers:
        stated = _STATED.fullmatch(answer)
        assert stated is not None
        name, value = stated["name"], stated["value"]
        for place in re.finditer(rf"\b({re.escape(name)}) is ({value})\.", text):
            _paint(kinds, *place.span(1), "name of a fact")
            _paint(kinds, *place.span(2), "digits of a fact")
    return kinds


def _prose_kind(part: re.Match[str]) -> str:
    if part.lastgroup == "word":
        return "function word" if part[0].lower() in FUNCTION_WORDS else "other word"
    return {"space": "white space", "number": "other digits"}.get(
        str(part.lastgroup), "punctuation"
    )


def code_kinds(text: str) -> list[str]:
    """The kind of each character, as Python's own `tokenize` sees it; what stands behind the last
    whole token is left out.
    """
    kinds = ["white space" if character.isspace() else "" for character in text]
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    for token in _python_tokens(text):
        start, end = (starts[line - 1] + column for line, column in (token.start, token.end))
        if token.string.strip():
            _paint(kinds, start, end, _code_kind(token))
    return kinds


def _python_tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):  # the document is cut somewhere
        return


def _code_kind(token: tokenize.TokenInfo) -> str:
    name = tokenize.tok_name[token.type]
    if name == "NAME":
        return "keyword" if keyword.iskeyword(token.string) else "name in code"
    if name.startswith("FSTRING"):  # Python 3.12 takes f-strings apart
        return "string"
    return {
        "COMMENT": "comment",
        "STRING": "string",
        "NUMBER": "digits in code",
        "OP": "punctuation",
    }.get(name, "")


def _paint(kinds: list[str], start: int, end: int, kind: str) -> None:
    kinds[start:end] = [kind] * (min(end, len(kinds)) - start)


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
