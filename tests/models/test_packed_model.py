"""Weights of a folder that are quantised at load and stay packed on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from namm_llm.errors import UsageError
from namm_llm.models.loading import load_model
from namm_llm.models.packed import Backend, backend

IDS = torch.arange(3, 60)[None]

needs_kernels = pytest.mark.skipif(backend() is Backend.OFF, reason="no packed kernels here")


def logits(folder: Path, quantization: str | None) -> torch.Tensor:
    loaded = load_model(folder, device="cpu", quantization=quantization)
    with torch.no_grad():
        return loaded.model(IDS).logits.float()


@needs_kernels
def test_more_bits_are_closer_to_floats(tiny_folder: Path) -> None:
    full = logits(tiny_folder, None)
    eight, four = (
        torch.corrcoef(torch.stack([full.flatten(), logits(tiny_folder, kind).flatten()]))[0, 1]
        for kind in ("int8", "int4")
    )
    assert 0.999 < eight < 1
    # rounding to 4 bits moves each of the random weights here by a tenth of their spread
    assert 0.9 < four < eight


@needs_kernels
def test_packed_weights_have_fingerprints_of_their_own(tiny_folder: Path) -> None:
    kinds = (None, "int8", "int4")
    loaded = [load_model(tiny_folder, device="cpu", quantization=kind) for kind in kinds]
    assert len({each.fingerprint for each in loaded}) == 3
    assert loaded[2].footprint_bytes < loaded[1].footprint_bytes < loaded[0].footprint_bytes


def test_a_gguf_file_takes_no_quantization(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="quantised already; leave quantization out"):
        load_model(tmp_path / "model.gguf", quantization="int4")
