"""Linear maps with packed weights against the float32 weights that they hold."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from namm_llm.errors import ModelError, UsageError
from namm_llm.models.packed import Backend, Packer, fuse, make_linear
from namm_llm.models.packed.formats import FORMATS
from namm_llm.models.packed.int4 import portable
from namm_llm.models.packed.linear import PackedLinear, rms_norm
from namm_llm.models.packed.native import quantised
from tests.models.packed.conftest import distance

Blocks = Callable[[str, int, int], tuple[Tensor, Tensor]]

_ROUNDED = 0.012
"""What 8-bit or bfloat16 activations, and Q6_K in 8-bit groups, may cost."""


def made(blocks: Blocks, name: str, rows: int, columns: int, **more: Tensor) -> PackedLinear:
    linear = make_linear(blocks(name, rows, columns)[0], name, (rows, columns), **more)
    assert linear is not None
    return linear


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 256), (37, 512), (96, 768)])
def test_products_are_those_of_the_weights(
    each_backend: Backend, blocks: Blocks, name: str, rows: int, columns: int
) -> None:
    weights, bias = blocks(name, rows, columns)[1], torch.randn(rows)
    linear = made(blocks, name, rows, columns, bias=bias)
    for count in (1, 2, 15, 16, 70):
        x = torch.randn(count, columns)
        error = (linear(x) - functional.linear(x, weights, bias)).norm()
        usual = x.norm() * weights.norm() / columns**0.5  # one product may be near zero by chance
        assert error < _ROUNDED * usual * (1 + 2 / (rows * count) ** 0.5)  # few numbers vary more


@pytest.mark.parametrize("name", FORMATS)
def test_compiled_products_only_round_activations(
    compiled: None, blocks: Blocks, name: str
) -> None:
    linear, weights = made(blocks, name, 37, 512), blocks(name, 37, 512)[1]
    for count in (1, 7, 65):
        x = torch.randn(count, 512)
        assert distance(linear(x), quantised(x) @ weights.double().T) < 1e-4


@pytest.mark.parametrize("name", [*FORMATS, "F16", "BF16"])
@pytest.mark.parametrize("count", [1, 15, 40])
def test_exact_products_keep_activations(
    compiled: None, blocks: Blocks, name: str, count: int
) -> None:
    if name in FORMATS:
        raw, weights = blocks(name, 37, 512)
    else:
        halves = torch.randn(37, 512).to(torch.float16 if name == "F16" else torch.bfloat16)
        raw, weights = halves.view(torch.uint8), halves.float()
    linear = make_linear(raw, name, (37, 512))
    assert linear is not None
    linear.exact = True
    x = torch.randn(count, 512)
    assert distance(linear(x), x.double() @ weights.double().T) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 20])
def test_results_have_the_dtype_of_the_input(
    each_backend: Backend, blocks: Blocks, dtype: torch.dtype, count: int
) -> None:
    linear, weights = made(blocks, "Q4_K", 48, 512), blocks("Q4_K", 48, 512)[1]
    x = torch.randn(2, count, 512).to(dtype)
    y = linear(x)
    assert y.dtype is dtype
    assert y.shape == (2, count, 48)
    assert distance(y, functional.linear(x.float(), weights)) < _ROUNDED


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_does_not_depend_on_its_batch_or_threads(
    compiled: None, blocks: Blocks, name: str
) -> None:
    linear, x = made(blocks, name, 200, 1024), torch.randn(70, 1024)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = linear(x)
        torch.set_num_threads(1)
        assert torch.equal(linear(x), together)
    finally:
        torch.set_num_threads(threads)
    for row in (0, 63, 64, 69):
        assert torch.equal(linear(x[row]), together[row])


def test_strided_and_empty_inputs(each_backend: Backend, blocks: Blocks) -> None:
    linear, x = made(blocks, "Q4_1", 40, 64), torch.randn(64, 5)
    assert torch.equal(linear(x.T), linear(x.T.contiguous()))
    assert linear(torch.empty(0, 64)).shape == (0, 40)
    assert linear(torch.empty(2, 0, 64)).shape == (2, 0, 40)


def test_inputs_that_do_not_fit_are_refused(compiled: None, blocks: Blocks) -> None:
    linear = made(blocks, "Q4_1", 40, 64)
    with pytest.raises(ValueError, match=r"width 64.*\[2, 96\]"):
        linear(torch.randn(2, 96))
    with pytest.raises(ValueError, match="int64"):
        linear(torch.ones(2, 64, dtype=torch.int64))
    with pytest.raises(ValueError, match="residual"):
        linear(torch.randn(2, 64), torch.randn(1, 40))


def test_a_number_that_is_not_finite_spoils_its_row_only(compiled: None, blocks: Blocks) -> None:
    linear, x = made(blocks, "Q4_1", 40, 64), torch.randn(3, 64)
    right = linear(x)
    for broken in (torch.nan, torch.inf):
        spoilt = x.clone()
        spoilt[1, 5] = broken
        found = linear(spoilt)
        assert found[1].isnan().all()
        assert torch.equal(found[[0, 2]], right[[0, 2]])


def test_types_without_a_kernel_are_not_taken(each_backend: Backend, blocks: Blocks) -> None:
    assert make_linear(torch.zeros(4, 84, dtype=torch.uint8), "Q2_K", (4, 256)) is None
    assert make_linear(blocks("Q4_0", 4, 96)[0], "Q4_K", (4, 96)) is None


def test_bytes_that_do_not_match_the_shape_are_refused(
    each_backend: Backend, blocks: Blocks
) -> None:
    with pytest.raises(UsageError, match=r"Q4_1 .*\[40, 64\] take uint8 \[40, 40\], not"):
        make_linear(blocks("Q4_1", 39, 64)[0], "Q4_1", (40, 64))


def test_gradients_reach_the_input(each_backend: Backend, blocks: Blocks) -> None:
    linear, weights = made(blocks, "Q4_1", 40, 64), blocks("Q4_1", 40, 64)[1]
    x = torch.randn(3, 64, requires_grad=True)
    linear(x).sum().backward()
    assert x.grad is not None
    assert distance(x.grad, weights.sum(0).expand(3, 64)) < _ROUNDED


@pytest.mark.parametrize("name", FORMATS)
def test_copies_and_pickles_compute_the_same(
    each_backend: Backend, blocks: Blocks, name: str
) -> None:
    linear = made(blocks, name, 40, 512, bias=torch.randn(40))
    x = torch.randn(3, 512)
    wanted = linear(x)
    copied, loaded = copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))
    del linear
    assert torch.equal(copied(x), wanted)
    assert torch.equal(loaded(x), wanted)


@pytest.mark.parametrize("name", ["Q4_1", "Q6_K"])
def test_a_pickle_opens_without_compiled_kernels(
    compiled: None, blocks: Blocks, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear, weights = made(blocks, name, 40, 512), blocks(name, 40, 512)[1]
    saved = pickle.dumps(linear)
    monkeypatch.setattr("namm_llm.models.packed.native.load", lambda: "no compiler")
    x = torch.randn(3, 512)
    assert distance(pickle.loads(saved)(x), x @ weights.T) < _ROUNDED


def test_int4_weights_of_another_cpu_are_repacked(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from namm_llm.models.packed import int4

    monkeypatch.setenv("NAMM_LLM_PACKED", "torch")
    linear = made(blocks, "Q8_0", 100, 64)
    stored = linear.weights[0]
    assert isinstance(stored, int4.Int4Weights)
    wanted = stored.values(0, 100)
    swapped = tuple(reversed(stored.order))  # as if the rows of a block lay the other way round
    half = len(swapped) // 2
    low_first = stored.packed.view(-1, 64, half)
    reversed_rows = ((low_first & 15) << 4 | low_first >> 4).flip(-1)
    stored.packed.copy_(reversed_rows.reshape(stored.packed.shape))
    stored.order = swapped
    assert torch.equal(stored.values(0, 100), wanted)
    assert torch.equal(portable(stored).values(0, 100), wanted)
    assert portable(stored) is not stored


def test_dtypes_and_devices_of_the_weights_stay(each_backend: Backend, blocks: Blocks) -> None:
    model = nn.Sequential(made(blocks, "Q4_1", 64, 64, bias=torch.randn(64) / 3))
    x = torch.randn(2, 64)
    wanted = model(x)
    assert torch.equal(model.to(torch.bfloat16)(x), wanted)
    assert torch.equal(model.double()(x), wanted)
    assert torch.equal(model.share_memory()(x), wanted)
    with pytest.raises(ModelError, match="CPU"):
        model.to("meta")


def test_memory_is_that_of_the_blocks(compiled: None, blocks: Blocks) -> None:
    for name, format in FORMATS.items():
        linear = made(blocks, name, 160, 1024)
        assert linear.weights[0].nbytes <= 1.04 * 160 * 1024 // format.block * format.nbytes


def test_fused_maps_give_all_outputs(each_backend: Backend, blocks: Blocks) -> None:
    parts = [
        made(blocks, "Q4_K", 64, 512),
        made(blocks, "Q6_K", 37, 512, bias=torch.randn(37)),
        made(blocks, "Q4_K", 128, 512),
    ]
    fused = fuse(parts)
    assert fused is not None
    for count in (1, 5, 40):
        x = torch.randn(count, 512)
        wanted = torch.cat([part(x) for part in parts], -1)
        assert distance(fused(x), wanted) < 1e-4
    assert fused.out_features == 229


def test_fused_maps_of_one_format_share_or_join(each_backend: Backend, blocks: Blocks) -> None:
    fused = fuse([made(blocks, "Q4_1", 64, 64), made(blocks, "Q4_1", 128, 64)])
    assert fused is not None
    assert len(fused.weights) == (2 if each_backend is Backend.COMPILED else 1)
    assert sum(fused.widths) == 192


def test_maps_that_cannot_be_one_are_not_fused(each_backend: Backend, blocks: Blocks) -> None:
    narrow, wide = made(blocks, "Q4_1", 64, 64), made(blocks, "Q4_1", 64, 128)
    assert fuse([narrow, wide]) is None
    assert fuse([narrow] * 9) is None
    assert fuse([narrow, made(blocks, "Q4_1", 48, 64)], gate="silu") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", ["silu", "gelu_tanh"])
def test_norm_gate_and_residual_are_part_of_the_product(
    each_backend: Backend, blocks: Blocks, dtype: torch.dtype, gate: str
) -> None:
    parts = [made(blocks, "Q4_1", 40, 64), made(blocks, "Q8_0", 40, 64)]
    norm = torch.rand(64) + 0.5
    fused = fuse(parts, norm=norm, epsilon=1e-5, gate=gate)  # type: ignore[arg-type]
    assert fused is not None
    act = functional.silu if gate == "silu" else nn.GELU(approximate="tanh")
    for count in (1, 3, 70):
        x, residual = 3 * torch.randn(count, 64).to(dtype), torch.randn(count, 40).to(dtype)
        first, second = (part(rms_norm(x, norm, 1e-5)).float() for part in parts)
        wanted = residual.float() + act(first) * second
        assert distance(fused(x, residual), wanted) < _ROUNDED


def test_compiled_steps_are_exact(compiled: None, blocks: Blocks) -> None:
    parts = [made(blocks, "Q4_1", 40, 64), made(blocks, "Q8_0", 40, 64)]
    for part in parts:
        part.exact = True
    norm, x = torch.rand(64) + 0.5, torch.cat([torch.randn(4, 64), 40 * torch.randn(4, 64)])
    fused = fuse(parts, norm=norm, epsilon=1e-5, gate="silu")
    assert fused is not None
    assert fused.exact
    wide = rms_norm(x.double(), norm.double(), 1e-5).double()
    first, second = (wide @ part.weights[0].values(0, 40).double().T for part in parts)
    assert distance(fused(x), functional.silu(first) * second) < 1e-5


def test_a_tied_head_shares_the_embedding(each_backend: Backend, blocks: Blocks) -> None:
    raw, weights = blocks("Q8_0", 90, 64)
    packer = Packer()
    embedding = packer.embedding(raw, "Q8_0", (90, 64))
    head = packer.linear(raw, "Q8_0", (90, 64))
    assert embedding is not None
    assert head is not None
    assert head.weights[0] is embedding.weights
    x = torch.randn(2, 64)
    assert distance(head(x), x @ weights.T) < _ROUNDED


def test_two_maps_from_different_bytes_are_not_mixed_up(
    each_backend: Backend, blocks: Blocks
) -> None:
    packer = Packer()
    first = packer.linear(blocks("Q8_0", 90, 64)[0], "Q8_0", (90, 64))
    second = packer.linear(blocks("Q8_0", 90, 64)[0], "Q8_0", (90, 64))
    assert first is not None
    assert second is not None
    assert first.weights[0] is not second.weights[0]
