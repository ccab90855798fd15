"""The text of a document's file: plain text as it stands (markdown, code and everything unknown
too), HTML, PDF and Word (.docx).

Text only: pictures, the look, and a Word file's page headers and footers are left out. What else
could not be read is said in `warnings`. The libraries are those of the extra `documents` and are
imported when a file needs them.
"""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from namm_llm.documents.blocks import Text
from namm_llm.documents.text import check_text, decode, file_bytes
from namm_llm.errors import DocumentError, UsageError
from namm_llm.models.vision.parts import MARK, mark_of
from namm_llm.models.vision.picture import SUFFIXES, Picture, frames_of

# first bytes that no text begins with: what they are, and the suffix by which we read it
_SIGNATURES = (
    (b"%PDF-", "a PDF", ".pdf"),
    (b"PK\x03\x04", "a zip archive, perhaps a Word document", ".docx"),
    (b"\xd0\xcf\x11\xe0", "an old Office document or one with a password", None),
    (b"{\\rtf", "RTF", None),
)
_PDF_HEADER_WITHIN = 1024  # readers accept a PDF whose header comes this late
_PAGES_NAMED = 8


@dataclass(frozen=True)
class FileText:
    """What a file says."""

    name: str
    """The file's name without its folder."""
    text: str
    """Never empty."""
    warnings: tuple[str, ...] = ()
    """Lines that say what of the file is not in the text."""
    pictures: tuple[Picture, ...] = ()
    """Those whose marks are in the text: of a film, its frames."""


def read_file(path: str | os.PathLike[str]) -> FileText:
    """What a file says, by its suffix: .html, .htm, .pdf, .docx, and anything else as UTF-8 text.

    DocumentError, in one line, if there is nothing to read: missing, a folder, broken, encrypted,
    scanned, binary, of another kind than its suffix says. UsageError if the extra `documents` is
    needed and not installed.
    """
    path = Path(path)
    return text_of(file_bytes(path), str(path), path.suffix)


def read_film(path: str | os.PathLike[str]) -> FileText | None:
    """A picture, or the frames of a film in a folder, in the order of their names; None if this is
    neither. DocumentError, UsageError as of `picture_of`.
    """
    path = Path(path)
    if path.is_dir():
        if not any(each.suffix.lower() in SUFFIXES for each in path.iterdir()):
            return None
    elif path.suffix.lower() not in SUFFIXES:
        return None
    frames = tuple(frames_of(path))
    return FileText(path.name or str(path), "".join(map(mark_of, frames)), pictures=frames)


def text_of(data: bytes, name: str, suffix: str = "") -> FileText:
    """What the bytes of a file say; see `read_file`. name: how messages call it."""
    suffix = suffix.lower()
    _check_kind(data, name, suffix)
    read = _READERS.get(suffix)
    text, warnings = read(data, name) if read else (decode(data, name), [])
    check_text(text, name)
    return FileText(Path(name).name, text, tuple(warnings))


def join_texts(files: Sequence[FileText]) -> str:
    """Several documents as one text. Each begins with the line `Document: NAME`; a single one is
    left as it is.
    """
    if len(files) == 1:
        return files[0].text
    return "\n\n".join(f"Document: {file.name}\n\n{file.text.strip()}" for file in files) + "\n"


def content_of(files: Sequence[FileText]) -> Text:
    """The same as `Runner.read` takes it: with the pictures in the places of their marks."""
    text, pictures = (
        join_texts(files),
        {mark_of(each): each for file in files for each in file.pictures},
    )
    if not pictures:
        return text
    parts = re.split(f"({MARK.pattern.replace('(', '(?:')})", text)
    return [pictures.get(part, part) for part in parts if part]


def _check_kind(data: bytes, name: str, suffix: str) -> None:
    if data.startswith(b"GGUF"):
        raise DocumentError(f"{name} is a model, not a document; name it with --model.")
    for start, what, needed in _SIGNATURES:
        if data.startswith(start) and suffix != needed:
            do = (
                f"give it as a file whose name ends in {needed}"
                if needed
                else "save it as .docx, .pdf or text, without a password"
            )
            raise DocumentError(f"{name} is {what}; {do}.")


# -- one reader for each kind: (bytes, name) -> (text, warnings)
# --------------------------------------------------------------------------


def _html(data: bytes, name: str) -> tuple[str, list[str]]:
    with _extra(name):
        from inscriptis.css_profiles import STRICT_CSS_PROFILE
        from inscriptis.html_engine import Inscriptis
        from inscriptis.model.config import ParserConfig
        from lxml.etree import LxmlError, strip_elements
        from lxml.html import HTMLParser, document_fromstring

    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DocumentError(f"{name} is binary, not HTML.")
    try:
        data.decode()
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # lxml then asks the page itself
    try:
        tree = document_fromstring(data, parser=HTMLParser(encoding=encoding))
        # what only browsers without scripts show
        strip_elements(tree, "noscript", with_tail=False)
        laid_out = Inscriptis(tree, ParserConfig(css=STRICT_CSS_PROFILE)).get_text()
    except (LxmlError, RecursionError, LookupError, ValueError) as error:
        raise DocumentError(f"{name} cannot be read as HTML ({_one_line(error)}).") from error
    # tables come padded, and each block brings its own empty lines
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in laid_out.splitlines()))
    if not text.strip():
        raise DocumentError(
            f"{name} holds no text; if the page is made by JavaScript, save it from a browser or "
            "print it as a PDF."
        )
    return text, []


def _pdf(data: bytes, name: str) -> tuple[str, list[str]]:
    with _extra(name):
        from pypdf import PdfReader

    if b"%PDF-" not in data[:_PDF_HEADER_WITHIN]:
        raise DocumentError(f"{name} is no PDF, although its name says so.")
    with _quiet("pypdf"):
        try:
            reader = PdfReader(BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise DocumentError(f"{name} is encrypted; save it without its password first.")
            pages = list(reader.pages)
        except DocumentError:
            raise
        except Exception as error:  # a broken file makes pypdf raise anything
            raise DocumentError(
                f"{name} is a broken PDF ({_one_line(error)}); open it in a viewer and save it "
                "again."
            ) from error
        texts = [_page_text(page.extract_text) for page in pages]
    empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if len(empty) == len(texts):
        raise DocumentError(
            f"none of the {len(texts)} pages of {name} holds text; if they are scanned, run OCR on "
            "them first."
        )
    warnings = []
    if empty:
        named = ", ".join(map(str, empty[:_PAGES_NAMED])) + (
            ", ..." if len(empty) > _PAGES_NAMED else ""
        )
        warnings.append(
            f"{name}: no text could be read on {len(empty)} of {len(texts)} pages ({named})."
        )
    return "\n\n".join(text.strip() for text in texts if text.strip()), warnings


def _page_text(extract: Callable[[], str]) -> str:
    try:
        text = extract()
    except Exception:  # as above; the page is then counted as one without text
        return ""
    # fonts without a mapping give zero bytes and halves of characters
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _docx(data: bytes, name: str) -> tuple[str, list[str]]:
    with _extra(name):
        from mammoth import convert_to_html
        from mammoth.images import img_element

    if not zipfile.is_zipfile(BytesIO(data)):
        raise DocumentError(f"{name} is no Word document, or one that was cut short.")
    try:
        page = convert_to_html(
            BytesIO(data),
            include_embedded_style_map=False,
            convert_image=img_element(lambda image: {}),
        )
    except Exception as error:  # a zip of something else, damaged XML: anything may be raised
        raise DocumentError(
            f"{name} is a zip archive, but no whole Word document ({_one_line(error)})."
        ) from error
    if "<" not in page.value:
        raise DocumentError(f"{name} holds no text.")
    text, _ = _html(page.value.encode(), name)
    unknown = sorted(
        {message.message for message in page.messages if "element was ignored" in message.message}
    )
    return text, [f"{name}: {message}." for message in unknown]


_READERS: dict[str, Callable[[bytes, str], tuple[str, list[str]]]] = {
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}


@contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{name} needs libraries that are not installed: pip install 'namm-llm[documents]'."
        ) from error


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """What a library logs about a file stays out of the user's terminal; what matters of it is in
    our warnings.
    """
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
