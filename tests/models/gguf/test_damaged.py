"""Damaged files: each is one line within a second, never a huge allocation or another exception."""

from __future__ import annotations

import random
import resource
import struct
import time
from pathlib import Path

import pytest

from namm_llm.errors import ModelError
from namm_llm.models.gguf import load_gguf, open_gguf
from tests.models.gguf.files import VOCABULARY, tiny_model, write_model

SECONDS = 1.0
KILOBYTES = 400_000  # that one load may add to the peak; the file takes 200
KINDS = ("cut", "count", "bits", "shape")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_model("llama", VOCABULARY)
    path = write_model(tmp_path_factory.mktemp("whole") / "m.gguf", model, "llama", "Q4_1")
    load_gguf(path)  # imports are not what is timed
    return path


def damaged(content: bytes, header: int, kind: str, draw: random.Random) -> bytes:
    """The file with one damage of that kind."""
    changed = bytearray(content)
    if kind == "cut":
        return content[: draw.randrange(len(content) - 1)]
    if kind == "count":  # of tensors or keys, or a length anywhere in the header
        at = draw.choice([8, 16, *(draw.randrange(24, header - 8) for _ in range(8))])
        changed[at : at + 8] = struct.pack(
            "<Q", draw.choice([2**64 - 1, 2**63, 2**40, 2**31, 10**7])
        )
    elif kind == "bits":
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(header)] ^= 1 << draw.randrange(8)
    else:  # numbers of the model's description
        keys = [
            b"block_count",
            b"embedding_length",
            b"head_count",
            b"feed_forward_length",
            b"dimension_count",
        ]
        key = b"llama." + draw.choice(keys)
        at = content.find(key)
        at = content.find(draw.choice(keys)) if at < 0 else at
        end = content.index(b"\x04\x00\x00\x00", at) + 4
        changed[end : end + 4] = struct.pack("<I", draw.choice([0, 5, 2**16, 2**31 - 1, 2**32 - 1]))
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_one_line_within_a_second(kind: str, whole: Path, tmp_path: Path) -> None:
    draw = random.Random(kind)
    content, header = whole.read_bytes(), open_gguf(whole).headers[0].nbytes
    path = tmp_path / "m.gguf"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    messages = []
    for _ in range(125):
        path.write_bytes(damaged(content, header, kind, draw))
        start = time.process_time()
        try:
            load_gguf(path)  # a bit in a name or a token's text can be sound
        except ModelError as error:
            messages.append(str(error))
        assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
    assert len(messages) >= (125 if kind in ("cut", "shape") else 60)
    assert all("\n" not in message and len(message) < 700 for message in messages)


def test_infinite_weights_are_refused(whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    info = open_gguf(whole).tensors["blk.1.attn_q.weight"]
    content[info.offset : info.offset + 2] = b"\x00\x7c"
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"blk\.1\.attn_q\.weight holds infinite weights"):
        load_gguf(tmp_path / "m.gguf")
