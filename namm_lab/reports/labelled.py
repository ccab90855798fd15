"""Documents of five kinds of text, and the kind of each of their tokens."""

from __future__ import annotations

import io
import keyword
import os
import random
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from mimetypes import MimeTypes

from namm_lab.tasks import draw_samples
from namm_lab.tasks.corpus import CountTokens, shortened
from namm_lab.tasks.material import load_material
from namm_llm import UsageError

Folder = str | os.PathLike[str] | None
FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for from with as and or but not if "
    "is are be was has it its this that which can".split()
)
LATER, EARLIER = "repeated sentence", "sentence that comes again"
SENTENCE = 20  # characters of one that counts as repeated, at least
SENTENCES, STEP = 6, 4  # of a retrieved passage, and from one to the next: they overlap
_PARTS = re.compile(r"(?P<space>\s+)|(?P<number>\d+)|(?P<word>[^\W\d_]+)|(?P<mark>.)", re.DOTALL)
_STATED = re.compile(r"The .+? of (?:the )?(?P<name>.+) is (?P<value>\d+)\.")
_TOP_LEVEL = re.compile(r"^(?:def|class) ", re.MULTILINE)
_FACT_IN_CODE = re.compile(r"^# .+ is \d+\.$", re.MULTILINE)
_SAID = re.compile(r"\bmy (?P<name>[\w ]+?) is (?:now )?(?P<value>\d+)\.")


@dataclass(frozen=True)
class Labelled:
    """A document, and the kind of each of its characters; "" where it cannot be told, which is not
    counted.
    """

    text: str
    kinds: list[str]


# -- documents -------------------------------------------------------------------------------------


def prose_documents(
    count_tokens: CountTokens, length: int, documents: int, folder: Folder = None
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
            texts=folder,
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
    count_tokens: CountTokens, length: int, documents: int, folder: Folder = None
) -> list[Labelled]:
    """Code of Python's library from its first function or class on, so that no document begins
    within a string.
    """
    samples = draw_samples(
        "code", length, count=2 * documents, count_tokens=count_tokens, texts=folder
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


def dialogue_documents(
    count_tokens: CountTokens, length: int, documents: int, folder: Folder = None
) -> list[Labelled]:
    """Conversations of the task `conversation`."""
    samples = draw_samples(
        "conversation", length, count=documents, count_tokens=count_tokens, texts=folder
    )
    return [Labelled(sample.document, dialogue_kinds(sample.document)) for sample in samples]


def table_documents(
    count_tokens: CountTokens, length: int, documents: int, folder: Folder = None
) -> list[Labelled]:
    """Tables of what Python's library knows: states of HTTP and kinds of files."""
    lines = [
        *(f"| {status.value} | {status.name} | {status.phrase} |" for status in HTTPStatus),
        *(
            f"| {end} | {kind.partition('/')[0]} | {kind} |"
            for end, kind in MimeTypes().types_map[True].items()
        ),
    ]
    found = []
    for number in range(documents):
        rows = random.Random(number).sample(lines, len(lines))
        while count_tokens("\n".join(rows)) < length:
            rows += random.Random(len(rows)).sample(lines, len(lines))
        text = shortened(
            "| key | name | meaning |\n| --- | --- | --- |\n" + "\n".join(rows),
            length,
            count_tokens,
        )
        found.append(Labelled(text, repeated(text, prose_kinds(text, ()), text.splitlines())))
    return found


def passage_documents(
    count_tokens: CountTokens, length: int, documents: int, folder: Folder = None
) -> list[Labelled]:
    """Numbered passages of one text that overlap, in any order, as retrieval has them."""
    prose, found = load_material("test", count_tokens, folder).need_prose(), []
    for number in range(documents):
        rng = random.Random(number)
        pieces = [" ".join(piece.split()) for piece in prose.take(rng, length, count_tokens)]
        chunks = [pieces[at : at + SENTENCES] for at in range(0, len(pieces), STEP)]
        rng.shuffle(chunks)
        joined = (f"Passage {at}: {' '.join(chunk)}\n" for at, chunk in enumerate(chunks, 1))
        text = shortened("".join(joined), length, count_tokens)
        found.append(Labelled(text, repeated(text, prose_kinds(text, ()), pieces)))
    return found


TEXTS: dict[str, Callable[[CountTokens, int, int, Folder], list[Labelled]]] = {
    "prose": prose_documents,
    "code": code_documents,
    "dialogue": dialogue_documents,
    "tables": table_documents,
    "passages": passage_documents,
}


# -- kinds -----------------------------------------------------------------------------------------


def prose_kinds(text: str, answers: Sequence[str]) -> list[str]:
    """The kind of each character. answers: `The KIND of NAME is VALUE.` for each stated fact."""
    kinds = [""] * len(text)
    for part in _PARTS.finditer(text):
        _paint(kinds, part.start(), part.end(), _prose_kind(part, text))
    for answer in answers:
        stated = _STATED.fullmatch(answer)
        assert stated is not None
        name, value = stated["name"], stated["value"]
        for place in re.finditer(rf"\b({re.escape(name)}) is ({value})\.", text):
            _paint(kinds, *place.span(1), "name of a fact")
            _paint(kinds, *place.span(2), "digits of a fact")
    return kinds


def dialogue_kinds(text: str) -> list[str]:
    """The kind of each character; what the user says of himself are facts."""
    kinds = repeated(text, prose_kinds(text, ()), re.findall(r"(?<=: ).+", text))
    for speaker in re.finditer(r"^(?:User|Assistant):", text, re.MULTILINE):
        _paint(kinds, *speaker.span(), "speaker")
    for said in _SAID.finditer(text):
        _paint(kinds, *said.span("name"), "name of a fact")
        _paint(kinds, *said.span("value"), "digits of a fact")
    return kinds


def repeated(text: str, kinds: list[str], sentences: Sequence[str]) -> list[str]:
    """These kinds, with the sentences painted over that stand in the text more than once."""
    for sentence in set(sentences):
        if len(sentence) < SENTENCE:
            continue
        places = [place.start() for place in re.finditer(re.escape(sentence), text)]
        for number, start in enumerate(places if len(places) > 1 else ()):
            _paint(kinds, start, start + len(sentence), LATER if number else EARLIER)
    return kinds


def _prose_kind(part: re.Match[str], text: str) -> str:
    if part.lastgroup == "word":
        if part[0].lower() in FUNCTION_WORDS:
            return "function word"
        before = text[max(0, part.start() - 9) : part.start()].rstrip(" \"'“‘(*_")[-1:]
        starts = before in ".!?:;|\n"  # "" too
        return "name" if part[0][0].isupper() and not starts else "other word"
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
