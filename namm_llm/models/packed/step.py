"""A whole decoder for a few new tokens in one call of the compiled kernels.

Called layer by layer, a token of a small model costs more in Python and in operators than in
products. Here every layer runs in C: norm, products, rotation, the rows of the windows, attention,
gate and sums. Activations are float32, whatever the model's dtype. It computes what the fused
layers and the managed cache compute (`FusedLayer`, `LayerSequence`), which is its definition.
"""

from __future__ import annotations

import ctypes
import inspect
from array import array
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from namm_llm.attention.cpu import attend
from namm_llm.cache import ManagedCache
from namm_llm.cache.step import advance, reserve, takes
from namm_llm.models.packed.decoder import FAMILIES, FusedLayer
from namm_llm.models.packed.linear import PackedLinear, fuse
from namm_llm.models.packed.products import Products, norm_of
from namm_llm.models.packed.weights import check
from namm_llm.native import Library, load

_Address = ctypes.c_void_p


class _Layer(ctypes.Structure):
    """`layer_t` of native/kernels/step.h."""

    _fields_ = (
        ("plans", _Address * 4),
        ("head_norms", _Address * 2),
        ("output_norms", _Address * 2),
        ("head_epsilon", ctypes.c_double),
        ("output_epsilons", ctypes.c_double * 2),
        ("scale", ctypes.c_double),
        ("rotation", ctypes.c_int64),
    )


class _Decoder(ctypes.Structure):
    """`decoder_t`."""

    _fields_ = (
        ("layers", _Address),
        ("head", _Address),
        *(
            (name, ctypes.c_int64)
            for name in "layer_count width heads groups size inner turned dtype".split()
        ),
    )


class _Step(ctypes.Structure):
    """`step_t`."""

    _fields_ = (
        *((name, _Address) for name in "sequences cosines sines hidden logits".split()),
        *((name, ctypes.c_int64) for name in "count tokens positions kept vocabulary".split()),
    )


class DecoderStep:
    """The arguments of one model, made once. It holds no tensor of its own, and no model."""

    def __init__(self, model: Any, head: PackedLinear) -> None:
        """head: final norm and logits in one map. The model must be one that `step_of` takes."""
        decoder, library = model.model, load()
        assert isinstance(library, Library)
        self._run = library.functions.namm_step
        self._head = head
        self._linears = [
            linear for layer in decoder.layers for linear in _linears_of(layer.products)
        ]
        self._exact = [linear.exact for linear in self._linears]
        for linear in (*self._linears, head):
            linear.plan_address()
        first = decoder.layers[0]
        products: Products = first.products
        self._kinds = _rotation_kinds(decoder)
        layers = [_layer(each, self._kinds) for each in decoder.layers]
        self._layers = (_Layer * len(layers))(*layers)
        self.dtype = decoder.norm.weight.dtype
        heads, groups = products.heads
        self._decoder = _Decoder(
            layers=ctypes.addressof(self._layers),
            head=head.plan_address(),
            layer_count=len(layers),
            width=head.in_features,
            heads=heads,
            groups=groups,
            size=first.self_attn.head_dim,
            inner=products.down.in_features,
            dtype=attend.TYPES[self.dtype],
        )

    def is_of(self, model: Any) -> bool:
        """Whether nothing that it was made of has changed since."""
        linears = [*self._linears, self._head]
        exact = [linear.exact for linear in self._linears] == self._exact
        return exact and self._head.exact == model.lm_head.exact and all(map(_has_plan, linears))

    def __call__(
        self, model: Any, cache: ManagedCache, ids: Tensor, positions: Tensor, keep: int
    ) -> Tensor:
        """Logits `[B, T, V]` after each of the tokens ids `[B, T]`, or `[B, keep, V]` of the last
        ones; the cache then holds them, and their eviction steps were run.
        """
        count, tokens = ids.shape
        kept = keep or tokens
        decoder = model.model
        hidden = decoder.embed_tokens(ids).float().contiguous()
        tables = [_table(decoder.rotary_emb, hidden, positions, kind) for kind in self._kinds]
        self._decoder.turned = tables[0][0].shape[-1]
        cosines, sines = (
            array("q", [table[part].data_ptr() for table in tables]) for part in (0, 1)
        )
        sequences = array("q", reserve(cache, tokens, self._decoder.heads))
        logits = torch.empty(count, kept, self._head.out_features)
        step = _Step(
            sequences=sequences.buffer_info()[0],
            cosines=cosines.buffer_info()[0],
            sines=sines.buffer_info()[0],
            hidden=hidden.data_ptr(),
            logits=logits.data_ptr(),
            count=count,
            tokens=tokens,
            positions=tables[0][0].numel() // self._decoder.turned,
            kept=kept,
            vocabulary=self._head.out_features,
        )
        addresses = ctypes.addressof(self._decoder), ctypes.addressof(step)
        check(self._run(*addresses, torch.get_num_threads()))
        advance(cache, tokens)
        return logits.to(self.dtype)


_STEPS: WeakKeyDictionary[nn.Module, DecoderStep | None] = WeakKeyDictionary()


def decode_step(model: Any, cache: Any, ids: Tensor, positions: Tensor, keep: int) -> Tensor | None:
    """Logits as of `DecoderStep`; None if model, cache or tokens are not for it."""
    if ids.shape[1] > attend.MOST_TOKENS or not isinstance(cache, ManagedCache):
        return None
    step = step_of(model)
    if step is None or not takes(cache, len(ids), ids.shape[1], step.dtype):
        return None
    return step(model, cache, ids, positions, keep)


def step_of(model: Any) -> DecoderStep | None:
    """The step of a model, made at its first use; None for a model that it does not know."""
    step = _STEPS.get(model)
    if model not in _STEPS or (step is not None and not step.is_of(model)):
        step = _STEPS[model] = _make(model)
    return step


def _make(model: Any) -> DecoderStep | None:
    if type(model).__name__ not in {f"{family}ForCausalLM" for family in FAMILIES}:
        return None
    decoder, head = model.model, model.lm_head
    if not _are_known(decoder.layers) or not isinstance(head, PackedLinear):
        return None
    if getattr(model.config, "final_logit_softcapping", None) is not None:
        return None
    if attend.load() is None or not _has_function():
        return None
    norm = norm_of(decoder.norm)
    if norm is None:
        return None
    joined = fuse([head], norm=norm.weight, epsilon=norm.epsilon)
    if joined is None or not joined.plan_address() or decoder.norm.weight.dtype not in attend.TYPES:
        return None
    return DecoderStep(model, joined)


def _has_function() -> bool:
    """Whether the library's structures are ours."""
    library = load()
    if isinstance(library, str):
        return False
    functions, sizes = library.functions, (_Layer, _Decoder, _Step)
    functions.namm_step.argtypes = [_Address, _Address, ctypes.c_int]
    functions.namm_step_bytes.restype = ctypes.c_int64
    return bool(functions.namm_step_bytes() == sum(map(ctypes.sizeof, sizes)))


def _are_known(layers: Any) -> bool:
    """Whether all layers are fused ones of the same shape."""
    if not all(isinstance(layer, FusedLayer) for layer in layers):
        return False
    shapes = {
        (layer.products.heads, layer.self_attn.head_dim, layer.products.down.in_features)
        for layer in layers
    }
    return len(shapes) == 1


def _linears_of(products: Products) -> list[PackedLinear]:
    return [products.attention_input, products.attention_output, products.gate_up, products.down]


def _has_plan(linear: PackedLinear) -> bool:
    return linear.has_plan


def _layer(layer: Any, kinds: list[str | None]) -> _Layer:
    products: Products = layer.products
    kind = getattr(layer.self_attn, "layer_type", None) if len(kinds) > 1 else kinds[0]
    return _Layer(
        plans=tuple(linear.plan_address() for linear in _linears_of(products)),
        head_norms=products.head_norms,
        output_norms=tuple(norm and norm.weight.data_ptr() for norm in products.output_norms),
        head_epsilon=products.head_epsilon,
        output_epsilons=tuple(norm.epsilon if norm else 0.0 for norm in products.output_norms),
        scale=layer.self_attn.scaling,
        rotation=kinds.index(kind),
    )


def _rotation_kinds(decoder: Any) -> list[str | None]:
    """Kinds of layers that are rotated differently (Gemma 3); [None] where all are alike."""
    if "layer_type" not in inspect.signature(decoder.rotary_emb.forward).parameters:
        return [None]
    return sorted(set(decoder.config.layer_types))


def _table(
    rotary: Any, hidden: Tensor, positions: Tensor, kind: str | None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[1 or B, T, D]`, float32."""
    found = rotary(hidden, positions) if kind is None else rotary(hidden, positions, kind)
    cosines, sines = (part.float().contiguous() for part in found)
    return cosines, sines
