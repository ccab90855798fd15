"""What is text, and what is told of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from namm_llm.documents import read_text
from namm_llm.errors import DocumentError


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "notes.txt is empty; there is nothing to read."),
        (b" \n\t", "notes.txt is empty; there is nothing to read."),
        (
            b"\x7fELF\x00\x01\xff",
            "notes.txt is binary (byte 6 of 7); convert it to UTF-8 text first.",
        ),
        (
            b"text\x00more",
            "notes.txt is binary (a zero byte at position 4); convert it to text first.",
        ),
        (
            "é".encode("latin-1"),
            "notes.txt is not UTF-8 text (byte 0 of 1); convert it to UTF-8 text first.",
        ),
        (
            "é".encode("utf-16-be"),
            "notes.txt is binary (byte 1 of 2); convert it to UTF-8 text first.",
        ),
        (
            "text".encode("utf-16")[:-1],
            "notes.txt is damaged UTF-16 text (byte 8 of 9); convert it to UTF-8 text first.",
        ),
    ],
)
def test_files_that_are_no_text_are_explained(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    with pytest.raises(DocumentError) as error:
        read_text(path)
    assert str(error.value) == str(tmp_path / message)


def test_files_that_are_not_there_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"there is no file .*nothing\.txt\."):
        read_text(tmp_path / "nothing.txt")
    with pytest.raises(DocumentError, match="is a folder; name the files in it"):
        read_text(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "notes.txt").write_bytes("\ufeffEin Café, 漢字.".encode(encoding))
    assert read_text(tmp_path / "notes.txt") == "Ein Café, 漢字."


def test_text_files_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes("\ufeffEin Café.\r\n".encode())
    assert read_text(tmp_path / "notes.txt") == "Ein Café.\r\n"
