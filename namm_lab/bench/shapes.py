"""Models to measure on: Llamas of known shapes with random weights. For speed and memory, weights
need not be trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from namm_llm import Namm, UsageError
from namm_llm.models.quiet import quiet_bitsandbytes

POSITIONS = 131_072
QUANTIZATIONS = ("nf4", "fp4", "int8")
# bytes of a quantised weight; nf4 and fp4: 4 bits, and one 8-bit scale for each 64 of them
QUANTIZED_NBYTES = {"nf4": 0.5 + 1 / 64, "fp4": 0.5 + 1 / 64, "int8": 1.0}


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama. tied: the head is the embedding."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_dim: int
    tied: bool = True
    positions: int = POSITIONS

    @classmethod
    def of_config(cls, config: Any, name: str) -> Shape:
        """The sizes of a model of transformers."""
        config = config.get_text_config(decoder=True)
        heads = config.num_attention_heads
        return cls(
            name=name,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            vocabulary=config.vocab_size,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            tied=config.tie_word_embeddings,
            positions=config.max_position_embeddings,
        )

    @property
    def linear_parameters(self) -> int:
        """Weights of the layers' linear maps, which are what quantisation makes small."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All weights."""
        return (
            self.linear_parameters
            + self.vocabulary * self.hidden * (1 if self.tied else 2)
            + self.hidden * (2 * self.layers + 1)
        )

    def weights_nbytes(self, dtype: torch.dtype, quantization: str | None = None) -> int:
        """Memory of the weights. quantization: of the linear maps; embedding, head and norms stay
        in `dtype`.
        """
        if quantization is None:
            return self.parameters * dtype.itemsize
        rest = self.parameters - self.linear_parameters
        return (
            round(self.linear_parameters * QUANTIZED_NBYTES[quantization]) + rest * dtype.itemsize
        )

    def config(self) -> LlamaConfig:
        """For transformers."""
        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocabulary,
            max_position_embeddings=self.positions,
            tie_word_embeddings=self.tied,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=None,
        )


_LLAMA_3 = 128_256
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 256, 704, 5, 4, 2, 4096, 64),  # namm-tiny's
        Shape("100m", 768, 2048, 12, 12, 4, 32_000, 64),
        Shape("1b", 2048, 8192, 16, 32, 8, _LLAMA_3, 64),  # Llama-3.2-1B's
        Shape("8b", 4096, 14_336, 32, 32, 8, _LLAMA_3, 128, tied=False),  # Llama-3.1-8B's
        Shape("70b", 8192, 28_672, 80, 64, 8, _LLAMA_3, 128, tied=False),  # Llama-3.1-70B's
    )
}


def shape_named(name: str, layers: int | None = None) -> Shape:
    """layers: only so many of them, for parts of a large model. Raises UsageError."""
    if name not in SHAPES:
        raise UsageError(f"there is no shape {name!r}; it is one of {', '.join(SHAPES)}.")
    shape = SHAPES[name]
    if layers is None:
        return shape
    if not 1 <= layers <= shape.layers:
        raise UsageError(f"shape {name} has 1 to {shape.layers} layers, not {layers}.")
    return replace(shape, layers=layers)


def random_model(
    shape: Shape, dtype: torch.dtype, device: str = "cpu", quantization: str | None = None
) -> PreTrainedModel:
    """A Llama of this shape with random weights."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # built in its own type: no copy of the weights in float32
    try:
        with torch.device(device):
            made: Any = LlamaForCausalLM(shape.config())
    finally:
        torch.set_default_dtype(before)
    if quantization is not None:
        quiet_bitsandbytes()
        for layer in made.model.layers:
            _quantize(layer, quantization, device)
    return cast(PreTrainedModel, made.eval())


def _quantize(module: nn.Module, quantization: str, device: str) -> None:
    """Put bitsandbytes' linear maps into the place of the plain ones."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, _quantized(child, quantization).to(device))
        else:
            _quantize(child, quantization, device)


def _quantized(linear: nn.Linear, quantization: str) -> nn.Module:
    import bitsandbytes.nn

    bnb: Any = bitsandbytes.nn
    sizes = (linear.in_features, linear.out_features)
    if quantization == "int8":
        made = bnb.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, device="meta")
        made.weight = bnb.Int8Params(
            linear.weight.data, requires_grad=False, has_fp16_weights=False
        )
    else:
        made = bnb.Linear4bit(
            *sizes,
            bias=False,
            compute_dtype=linear.weight.dtype,
            quant_type=quantization,
            device="meta",
        )
        made.weight = bnb.Params4bit(
            linear.weight.data,
            requires_grad=False,
            quant_type=quantization,
            compress_statistics=True,
        )
    return cast(nn.Module, made)


def random_namm() -> Namm:
    """A NAMM of the published form with random parameters: it costs what a trained one costs."""
    zeros = Namm.zeros()
    theta = 0.1 * torch.randn(zeros.vector.shape, generator=torch.Generator().manual_seed(0))
    return Namm.from_vector(theta, torch.full((17,), 0.02), torch.full((17,), 0.01))


def random_ids(vocabulary: int, batch: int, length: int) -> torch.Tensor:
    """Token ids `[batch, length]`, the same whenever they are asked for."""
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))
