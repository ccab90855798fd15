"""The text of a file; what of it is lost is said, and what cannot be read is one clear line."""

from __future__ import annotations

import builtins
import random
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import docx
import pytest
from pypdf import PdfWriter

from namm_llm.documents import FileText, join_texts, read_file, text_of
from namm_llm.errors import DocumentError, NammError, UsageError
from tests.documents.pdf import pdf

PAGE = """<!DOCTYPE html><html><head><meta charset="windows-1252"><title>t</title>
<style>p {}</style></head>
<body><h1>Handbook</h1><p>Requests are <b>signed</b> by  the
head. A café.</p><ul><li>one<li>two</ul><table><tr><th>Name<th>City</tr>
<tr><td>Ann<td>Rome</tr></table><pre>  code
    more</pre><script>var hidden = 1</script></body></html>"""
PAGE_TEXT = """Handbook

Requests are signed by the head. A café.

  * one
  * two
Name  City
Ann   Rome

  code
    more"""


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Handbook")
    document.add_paragraph("Requests are ").add_run("signed").bold = True
    document.add_table(rows=1, cols=2).rows[0].cells[0].text = "Ann"
    document.tables[0].rows[0].cells[1].text = "Rome"
    document.add_paragraph("After the table: café.")
    file = BytesIO()
    document.save(file)
    return file.getvalue()


def encrypted(password: str, owner: str) -> bytes:
    writer = PdfWriter()
    writer.append(BytesIO(pdf("Secret.")))
    writer.encrypt(password, owner, algorithm="AES-256")
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


def zipped(name: str = "a.txt", content: str = "x") -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


Write = Callable[[str, bytes], Path]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "README", "a.TXT"])
def test_text_is_read_as_it_is(write: Write, name: str) -> None:
    text = "# Grün\r\n\n* [x](y)  \n\ttab <b>no html</b>\n"
    assert read_file(write(name, b"\xef\xbb\xbf" + text.encode())) == FileText(name, text)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-16"])
def test_html_is_its_visible_text_in_any_encoding(write: Write, encoding: str) -> None:
    assert read_file(write("page.HTML", PAGE.encode(encoding))) == FileText("page.HTML", PAGE_TEXT)


def test_a_word_document_keeps_its_order_and_its_tables(write: Write) -> None:
    assert read_file(write("a.docx", word())) == FileText(
        "a.docx", "Handbook\n\nRequests are signed\n\nAnn  Rome\n\nAfter the table: café."
    )


def test_a_word_documents_footnotes_are_read(write: Write) -> None:
    """python-docx cannot write them, so the parts are put in by hand."""
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    source = zipfile.ZipFile(BytesIO(word()))
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            data = source.read(name).decode("latin-1")
            if name == "word/document.xml":
                data = data.replace(
                    "<w:t>signed</w:t>", '<w:t>signed</w:t><w:footnoteReference w:id="2"/>'
                )
                assert "footnoteReference" in data
            if name == "word/_rels/document.xml.rels":
                kind = (
                    "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
                )
                data = data.replace(
                    "</Relationships>",
                    f'<Relationship Id="rId99" Type="{kind}" Target="footnotes.xml"/>'
                    "</Relationships>",
                )
            archive.writestr(name, data.encode("latin-1"))
        note = '<w:footnote w:id="2"><w:p><w:r><w:t>Below the line.</w:t></w:r></w:p></w:footnote>'
        archive.writestr(
            "word/footnotes.xml", f'<w:footnotes xmlns:w="{main}">{note}</w:footnotes>'
        )
    text = read_file(write("a.docx", file.getvalue())).text
    assert "signed[1]" in text.replace(" ", "")
    assert "Below the line." in text


def test_what_only_browsers_without_scripts_show_is_left_out(write: Write) -> None:
    page = b"<p>The lamp is green.</p><noscript><p>Switch scripts on.</p></noscript><p>Bye.</p>"
    assert read_file(write("a.html", page)).text.split("\n\n") == ["The lamp is green.", "Bye."]


def test_a_gguf_file_is_no_document(write: Write) -> None:
    with pytest.raises(DocumentError, match=r"is a model, not a document; name it with --model\.$"):
        read_file(write("a.gguf", b"GGUF\3\0\0\0"))


def test_pdf_pages_without_text_are_counted_and_named(write: Write) -> None:
    path = write("a.pdf", pdf("First.", "", "Gr\xfcn.", ""))
    assert read_file(path) == FileText(
        "a.pdf", "First.\n\nGrün.", (f"{path}: no text could be read on 2 of 4 pages (2, 4).",)
    )
    assert read_file(write("b.pdf", pdf("One.", "Two."))) == FileText("b.pdf", "One.\n\nTwo.")
    assert read_file(write("c.pdf", b"junk before\n" + pdf("One."))).text == "One."
    assert (
        "9 of 10 pages (2, 3, 4, 5, 6, 7, 8, 9, ...)"
        in read_file(write("d.pdf", pdf("One.", *[""] * 9))).warnings[0]
    )


def test_a_pdf_that_only_its_owner_may_change_is_read(write: Write) -> None:
    assert read_file(write("a.pdf", encrypted("", "owner"))).text == "Secret."


BAD: list[tuple[str, bytes, str]] = [
    ("a.pdf", encrypted("key", "owner"), "{} is encrypted; save it without its password first."),
    (
        "a.pdf",
        pdf("", ""),
        "none of the 2 pages of {} holds text; if they are scanned, run OCR on them first.",
    ),
    ("a.pdf", pdf("One.")[:200], "{} is a broken PDF ("),
    ("a.pdf", b"%PDF-1.4\n", "{} is a broken PDF ("),
    ("a.pdf", b"words", "{} is no PDF, although its name says so."),
    ("a.txt", pdf("One."), "{} is a PDF; give it as a file whose name ends in .pdf."),
    (
        "a",
        word(),
        "{} is a zip archive, perhaps a Word document; give it as a file whose name ends in .docx.",
    ),
    ("a.docx", pdf("One."), "{} is a PDF; give it as a file whose name ends in .pdf."),
    ("a.docx", b"words", "{} is no Word document, or one that was cut short."),
    ("a.docx", word()[:3000], "{} is no Word document, or one that was cut short."),
    ("a.docx", zipped(), "{} is a zip archive, but no whole Word document ("),
    (
        "a.docx",
        zipped("word/document.xml", "<w"),
        "{} is a zip archive, but no whole Word document (",
    ),
    (
        "a.docx",
        b"\xd0\xcf\x11\xe0\xa1",
        "{} is an old Office document or one with a password; save it as .docx, .pdf or text, "
        "without a password.",
    ),
    ("a.rtf", b"{\\rtf1 words}", "{} is RTF; save it as .docx, .pdf or text, without a password."),
    (
        "a.html",
        b"<html><body><script>words()</script></body></html>",
        "{} holds no text; if the page is made by JavaScript, save it from",
    ),
    ("a.html", b"", "{} cannot be read as HTML (Document is empty)."),
    ("a.html", b"<p>\x00\x01", "{} is binary, not HTML."),
    ("a.html", pdf("One."), "{} is a PDF; give it as a file whose name ends in .pdf."),
    (
        "a.png",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        "{} is binary (byte 0 of 10); convert it to UTF-8 text first.",
    ),
    ("a.txt", b"caf\xe9", "{} is not UTF-8 text (byte 3 of 4); convert it to UTF-8 text first."),
    ("a.md", b" \n", "{} is empty; there is nothing to read."),
]


@pytest.mark.parametrize(
    ("name", "data", "message"), BAD, ids=[f"{number}-{case[0]}" for number, case in enumerate(BAD)]
)
def test_what_cannot_be_read_is_one_clear_line(
    write: Write, name: str, data: bytes, message: str
) -> None:
    path = write(name, data)
    with pytest.raises(DocumentError) as caught:
        read_file(path)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"is a folder; name the files in it\.$"):
        read_file(tmp_path)
    with pytest.raises(DocumentError, match=r"^there is no file .*a\.pdf\.$"):
        read_file(tmp_path / "a.pdf")


@pytest.mark.parametrize(
    ("suffix", "data", "times"),
    [(".pdf", pdf(*["The lamp is green."] * 3), 100), (".docx", word(), 12)],
    ids=["pdf", "docx"],
)
def test_damage_is_a_typed_error_or_still_text(suffix: str, data: bytes, times: int) -> None:
    """Cut and flipped bytes: never another exception, and nothing on the terminal."""
    dice = random.Random(0)
    read = 0
    for _ in range(times):
        damaged = bytearray(data[: dice.randrange(len(data))] if dice.random() < 0.5 else data)
        for _ in range(dice.randrange(4)):
            if damaged:
                damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        try:
            read += bool(text_of(bytes(damaged), f"a{suffix}", suffix).text.strip())
        except NammError as error:
            assert "\n" not in str(error)  # noqa: PT017 (reading some of them is right too)
    assert read > 0


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.html"])
def test_a_missing_extra_names_the_command(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = builtins.__import__

    def no_extra(module: str, *rest: Any) -> Any:
        if module.split(".")[0] in ("pypdf", "mammoth", "inscriptis", "lxml"):
            raise ImportError(module)
        return real(module, *rest)

    monkeypatch.setattr(builtins, "__import__", no_extra)
    path = write(name, {"a.pdf": pdf("One."), "a.docx": word(), "a.html": PAGE.encode()}[name])
    with pytest.raises(UsageError) as caught:
        read_file(path)
    assert (
        str(caught.value)
        == f"{path} needs libraries that are not installed: pip install 'namm-llm[documents]'."
    )


def test_several_documents_are_introduced_by_their_names() -> None:
    one, two = FileText("a.txt", "The lamp\nis green.\n"), FileText("b.pdf", "\nThe door is red.")
    assert join_texts([one]) == one.text
    assert (
        join_texts([one, two])
        == "Document: a.txt\n\nThe lamp\nis green.\n\nDocument: b.pdf\n\nThe door is red.\n"
    )
