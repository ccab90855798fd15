"""The functions of the compiled library and their arguments, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from namm_llm.native import Library

ROW_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
"""GGML's numbers of the types that are stored row by row, unquantised."""
MOST_PARTS = 8
"""Matrices of one product."""


class Part(ctypes.Structure):
    """One matrix: `part_t` of kernels/tiles.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("format", ctypes.c_int64),
    )


class Plan(ctypes.Structure):
    """Matrices that are multiplied by the same activations: `plan_t` of kernels/multiply.h."""

    _fields_ = (
        ("columns", ctypes.c_int64),
        ("exact", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("gate", ctypes.c_int64),
        ("norm", ctypes.c_void_p),
        ("epsilon", ctypes.c_double),
        ("parts", Part * MOST_PARTS),
    )


@dataclass(frozen=True, kw_only=True)
class Native:
    """The functions of the library. Those that need memory return 1 if it is short."""

    name: str
    """What it was compiled for: avx512-vnni, avx512, avx-vnni, avx2 or plain."""
    threads: bool
    """Whether it runs in the threads of torch's OpenMP runtime; else in one."""
    multiply: Any
    """namm_multiply(plan, x, residual, y, rows, x stride, y stride, bfloat16?, threads)."""
    expand: Any
    """namm_expand(part, columns, start, stop, out, bfloat16?, threads)."""
    take: Any
    """namm_take(part, columns, ids, count, out, bfloat16?): 2 if an id is out of range."""
    pack: Any
    """namm_pack(raw, bytes of a row, rows, columns, GGML type, tiles, threads)."""
    rotate: Any
    """namm_rotate(x, cosines, sines, query norm, key norm, epsilon, rows, stride, heads, key heads,
    dim, turned, positions, bfloat16?, threads)."""
    norm: Any
    """namm_norm(x, weight, epsilon, residual, y, rows, columns, bfloat16?, threads)."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a product does before and after the multiplication."""

    exact: bool = False
    """Activations stay floats."""
    norm: Tensor | None = None
    """float32 [columns]: the input is divided by its root mean square and multiplied by this."""
    epsilon: float = 0.0
    """Added to the mean square."""
    gate: int = 0
    """0; or 1 (silu), 2 (gelu, tanh): of two parts the result is act(first) * second."""


def plan_of(
    parts: Sequence[tuple[Tensor, Tensor | None, int, int]], columns: int, steps: Steps
) -> Plan:
    """A plan of (tiles or rows, bias, rows, GGML type); the tensors must outlive it."""
    plan = Plan(columns=columns, exact=steps.exact, count=len(parts), gate=steps.gate)
    if steps.norm is not None:
        plan.norm, plan.epsilon = steps.norm.data_ptr(), steps.epsilon
    for at, (data, bias, rows, ggml_type) in enumerate(parts):
        address = None if bias is None else bias.data_ptr()
        plan.parts[at] = Part(data.data_ptr(), address, rows, ggml_type)
    return plan


def bind(library: Library) -> Native:
    """The library's functions with their types. ValueError if it lays out a plan differently."""
    functions = library.functions
    pointer, number, flag, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
    functions.namm_plan_bytes.restype = number
    functions.namm_multiply.argtypes = [*[pointer] * 4, *[number] * 3, flag, flag]
    functions.namm_expand.argtypes = [pointer, number, number, number, pointer, flag, flag]
    functions.namm_take.argtypes = [pointer, number, pointer, number, pointer, flag]
    functions.namm_pack.argtypes = [pointer, number, number, number, number, pointer, flag]
    functions.namm_rotate.argtypes = [*[pointer] * 5, real, *[number] * 7, flag, flag]
    sizes = [number, number, flag, flag]
    functions.namm_norm.argtypes = [pointer, pointer, real, pointer, pointer, *sizes]
    functions.namm_pack.restype = None
    if functions.namm_plan_bytes() != ctypes.sizeof(Plan):
        raise ValueError("the compiled kernels lay out their arguments in another way")
    return Native(
        name=library.name,
        threads=library.threads,
        multiply=functions.namm_multiply,
        expand=functions.namm_expand,
        take=functions.namm_take,
        pack=functions.namm_pack,
        rotate=functions.namm_rotate,
        norm=functions.namm_norm,
    )
