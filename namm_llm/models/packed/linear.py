"""Linear maps whose weights stay packed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from namm_llm.models.packed.binding import MOST_PARTS, ROW_TYPES, Plan, Steps, plan_of
from namm_llm.models.packed.int4 import Int4Weights, portable
from namm_llm.models.packed.weights import PackedWeights, TiledWeights, multiply

Gate = Literal["silu", "gelu_tanh"]
"""Activations of a gated product."""

_GATES: dict[Gate | None, int] = {None: 0, "silu": 1, "gelu_tanh": 2}
_MANY = 16
"""Rows from which weights are expanded and multiplied as floats, where that is faster."""
_EXPANDED = 1 << 22
"""Weights that are expanded at a time."""
_ALIGNED = 64
"""Rows of a block of any layout divide this."""


class PackedLinear(nn.Module):
    """y = x W^T + b with packed W; several matrices with the same input are one product ("fused").

    On request it includes the norm of the input, a gate and the sum with a residual.
    On a CPU only. Gradients flow to the input, not to the weights.
    """

    bias: Tensor | None
    """float32, as wide as all parts together, or None."""
    norm: Tensor | None
    """float32 [in_features]: weights of the root mean square norm of the input, or None."""

    def __init__(
        self,
        parts: Sequence[PackedWeights],
        bias: Tensor | None = None,
        *,
        norm: Tensor | None = None,
        epsilon: float = 0.0,
        gate: Gate | None = None,
        exact: bool = False,
    ) -> None:
        """Hold the weights.

        Args:
            parts: matrices of one width, their outputs side by side.
            bias: of all parts together.
            norm: weights of the input's norm, as they are multiplied.
            epsilon: of the norm.
            gate: the two parts are gate and up; the output is gate(first) * second.
            exact: see `exact`.
        """
        super().__init__()
        self.in_features = parts[0].columns
        self.out_features = parts[0].rows if gate else sum(part.rows for part in parts)
        self.parts = nn.ModuleList(parts)
        self.epsilon, self.gate = epsilon, gate
        for name, buffer in (("bias", bias), ("norm", norm)):
            kept = None if buffer is None else buffer.detach().float().clone()
            self.register_buffer(name, kept)
        self._exact = exact
        self._plan: Plan | None = None
        self._address = 0
        self._floats = False  # whether the plan multiplies floats

    @property
    def widths(self) -> list[int]:
        """Output features of each part, in order."""
        return [part.rows for part in self.weights]

    @property
    def weights(self) -> list[PackedWeights]:
        """The matrices."""
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def exact(self) -> bool:
        """Whether activations stay floats: slower. Otherwise kernels round them to 8 bits."""
        return self._exact

    @exact.setter
    def exact(self, exact: bool) -> None:
        self._exact, self._plan = exact, None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[..., in_features] to [..., out_features] of the same dtype, plus the residual.

        x, residual: float32, bfloat16 or float16.
        """
        if x.requires_grad and torch.is_grad_enabled():
            return self._plain(x, residual, expand=True)
        plan = self._plan or self._make_plan()
        if plan is None or x.dtype is torch.float16:
            return self._plain(x, residual, expand=self._exact)
        if self._floats and x.numel() >= _MANY * self.in_features:
            return self._plain(x, residual, expand=True)
        return multiply(self._address, x, self.in_features, self.out_features, residual)

    @property
    def has_plan(self) -> bool:
        """Whether `plan_address` is still the one that it gave last."""
        return self._plan is not None

    def plan_address(self) -> int:
        """`plan_t` of native/kernels/multiply.h, good until weights or precision change; or 0."""
        return self._address if (self._plan or self._make_plan()) else 0

    def _make_plan(self) -> Plan | None:
        """The arguments of the compiled kernels, kept; None if the weights are not theirs."""
        if not all(isinstance(part, TiledWeights) for part in self.parts):
            return None
        parts: list[tuple[Tensor, Tensor | None, int, int]] = []
        start = 0
        for part in self.parts:
            assert isinstance(part, TiledWeights)
            bias = None if self.bias is None else self.bias[start : start + part.rows]
            parts.append((part.tiles, bias, part.rows, part.ggml_type))
            start += part.rows
        self._floats = self._exact or any(part[3] in ROW_TYPES.values() for part in parts)
        gate = _GATES[self.gate]
        steps = Steps(exact=self._exact, norm=self.norm, epsilon=self.epsilon, gate=gate)
        self._plan = plan_of(parts, self.in_features, steps)
        self._address = ctypes.addressof(self._plan)
        return self._plan

    def _plain(self, x: Tensor, residual: Tensor | None, *, expand: bool) -> Tensor:
        """The definition: norm, products, bias, gate and sum, one after the other."""
        flat = x.reshape(-1, self.in_features)
        if self.norm is not None:
            flat = rms_norm(flat, self.norm, self.epsilon)
        y = self._expanded(flat) if expand or len(flat) >= _MANY else self._by_parts(flat)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        if self.gate is not None:
            first, second = y.chunk(2, -1)
            y = gated(self.gate, first) * second
        y = y.view(*x.shape[:-1], self.out_features).to(x.dtype)
        return y if residual is None else residual + y

    def _by_parts(self, x: Tensor) -> Tensor:
        """Products of each matrix on its own, in a dtype that its kernel takes."""
        cast = x.float() if x.dtype is torch.float16 else x
        return torch.cat([part(cast) for part in self.weights], -1)

    def _expanded(self, x: Tensor) -> Tensor:
        """Some rows of the weights at a time expanded, and multiplied by torch."""
        dtype = x.dtype if x.dtype is torch.bfloat16 and _fast_bfloat16() else torch.float32
        cast, products = x.to(dtype), []
        step = max(_ALIGNED, _EXPANDED // self.in_features // _ALIGNED * _ALIGNED)
        for part in self.weights:
            for start in range(0, part.rows, step):
                products.append(functional.linear(cast, part.values(start, start + step, dtype)))
        return torch.cat(products, -1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """As nn.Module does, but everything stays float32 and on the CPU. ModelError otherwise."""
        self._plan, bias, norm = None, self.bias, self.norm
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.bias, self.norm = bias, norm  # buffers, which nn.Module would round
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan, which holds addresses."""
        return {**self.__dict__, "_plan": None, "_address": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.parts = nn.ModuleList(portable(part) for part in self.weights)

    @property
    def rows_are_independent(self) -> bool:
        """Whether a row's result is the same to the last bit beside fewer than 16 others."""
        return all(isinstance(part, TiledWeights) for part in self.parts)

    def extra_repr(self) -> str:
        """For print(model)."""
        steps = f", norm={self.norm is not None}, gate={self.gate}"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}" + steps


def rows_are_independent(model: nn.Module) -> bool:
    """Whether all maps of a model are packed and compute a row alike beside fewer than 16 others.

    Products of torch round a row otherwise when more rows come with it.
    """
    maps = [module for module in model.modules() if isinstance(module, PackedLinear | nn.Linear)]
    return all(isinstance(each, PackedLinear) and each.rows_are_independent for each in maps)


def fuse(
    linears: Sequence[PackedLinear],
    *,
    norm: Tensor | None = None,
    epsilon: float = 0.0,
    gate: Gate | None = None,
) -> PackedLinear | None:
    """One map whose output is that of all, side by side (see `PackedLinear.widths`).

    The weights are shared with the given maps where the kernels allow it.

    Args:
        linears: maps of one input, without steps of their own.
        norm, epsilon: see PackedLinear.
        gate: the two maps are gate and up.

    Returns:
        None if they cannot be one: other widths, steps or precision, or more than 8 matrices.
    """
    first = linears[0]
    parts = [part for linear in linears for part in linear.weights]
    alike = {(linear.in_features, linear.exact, linear.norm, linear.gate) for linear in linears}
    if alike != {(first.in_features, first.exact, None, None)} or len(parts) > MOST_PARTS:
        return None
    biases: list[Tensor] | None = None
    if any(linear.bias is not None for linear in linears):
        biases = [torch.zeros(n.out_features) if n.bias is None else n.bias for n in linears]
    bias = None if biases is None else torch.cat(biases)
    if gate is None:
        parts = _join_int4(parts)
    elif len(parts) != 2 or parts[0].rows != parts[1].rows:
        return None
    return PackedLinear(parts, bias, norm=norm, epsilon=epsilon, gate=gate, exact=first.exact)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, in float32; dtype of x."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * scale * weight).to(x.dtype)


def gated(gate: Gate, x: Tensor) -> Tensor:
    """The activation of a gate."""
    return functional.silu(x) if gate == "silu" else functional.gelu(x, approximate="tanh")


def _join_int4(parts: list[PackedWeights]) -> list[PackedWeights]:
    """Matrices of torch's operator as one, if they are alike: a call costs more than a row."""
    int4 = [part for part in parts if isinstance(part, Int4Weights)]
    joined = Int4Weights.join(int4) if len(int4) == len(parts) else None
    return parts if joined is None else [joined]


def _fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16; otherwise torch's products are ten times slower."""
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
