"""`LoadConfig`: which model, in which precision, where, and how it is run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from namm_llm.config.setting import check_fields, setting
from namm_llm.errors import UsageError

if TYPE_CHECKING:
    import torch

Quantization = Literal["int4", "int8", "nf4", "fp4"]
Device = str | dict[str, Any]
DEFAULT_MODEL = "namm-tiny"
_SCALING = re.compile(r"(yarn|linear):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are stretched beyond the trained ones."""

    kind: str
    """`yarn` (arXiv 2309.00071) or `linear` (arXiv 2306.15595)."""
    factor: float
    """Positions for each trained one, above 1."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.factor:g}"

    @classmethod
    def parse(cls, text: str) -> RopeScaling:
        """Of `yarn:4`. Raises UsageError for anything else."""
        found = _SCALING.fullmatch(str(text))
        if found is None or float(found[2]) <= 1:
            raise UsageError(
                f"rope_scaling is yarn or linear with a factor above 1, such as yarn:4, not "
                f"{text!r}."
            )
        return cls(found[1], float(found[2]))


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Which model is loaded, in which precision, where, and how it is run.

    Raises UsageError for a value that is out of range or no choice.
    """

    model: str | os.PathLike[str] = setting(
        "GGUF file, folder, Hugging Face id or pulled name of a Llama-like model.",
        DEFAULT_MODEL,
        annotation="str | os.PathLike[str]",
        metavar="NAME",
        aliases=("model_name", "model_id", "model_path"),
    )
    quantization: Quantization | None = setting(
        "int4 or int8 weights on a CPU; nf4, fp4 or int8 (bitsandbytes) on a GPU.",
        None,
        unset="as stored",
        metavar="Q",
        choices=get_args(Quantization),
    )
    device: Device = setting(
        "auto, cpu, cuda, cuda:1 or mps; in Python also a device map.",
        "auto",
        annotation="str | dict[str, Any]",
        metavar="D",
        aliases=("device_map",),
    )
    dtype: str | torch.dtype = setting(
        "auto, float32, bfloat16 or float16.",
        "auto",
        annotation="str | torch.dtype",
        metavar="T",
        aliases=("torch_dtype",),
    )
    adapter: str | os.PathLike[str] | None = setting(
        "Folder of a LoRA adapter whose changes are added to the weights.",
        None,
        annotation="str | os.PathLike[str] | None",
        metavar="FOLDER",
    )
    revision: str | None = setting(
        "Branch, tag or commit of a Hugging Face id.", None, metavar="REV"
    )
    rope_scaling: str | None = setting(
        "Read past the trained positions by stretched ones: yarn:4 or linear:2 times as many.",
        None,
        metavar="KIND:FACTOR",
    )
    local_files_only: bool = setting("Never look at the network.", False)
    trust_remote_code: bool = setting("Run code that comes with the model.", False)
    chunk: int = setting(
        "Tokens of a prompt that go through the model at once.",
        512,
        unit="tokens",
        metavar="N",
        least=1,
        group="run",
    )
    save_every: int = setting(
        "Of a stream, between two saves.", 16_384, unit="tokens", metavar="N", least=1, group="run"
    )
    prefix_caches: int = setting(
        "Caches of the last prompts that are kept, to read only what is new of the next one.",
        2,
        metavar="N",
        least=0,
        group="run",
    )
    cuda_graphs: bool | Literal["eager"] | None = setting(
        "Decode with CUDA graphs (experimental).",
        None,
        annotation="bool | Literal['eager'] | None",
        unset="where the model is on one CUDA device",
        group="run",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rope_scaling is not None:
            RopeScaling.parse(self.rope_scaling)

    @property
    def scaling(self) -> RopeScaling | None:
        """`rope_scaling`, parsed."""
        return None if self.rope_scaling is None else RopeScaling.parse(self.rope_scaling)
