"""A model and its tokenizer from a folder, a GGUF file or a Hugging Face id: quantised, placed on
its device, checked, and shared in the process.

Every failure is a ModelError of one line (UsageError for a setting that does not exist). Nothing is
downloaded unless the name is a Hugging Face id, and code that comes with a model never runs unless
asked for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast
from weakref import WeakValueDictionary

import torch
import transformers
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from namm_llm.cache.transformers import device_of
from namm_llm.config import DEFAULT_MODEL, LoadConfig, Quantization, settings_of, takes_settings
from namm_llm.errors import ModelError, UsageError
from namm_llm.models.adapter import Adapter, read_adapter
from namm_llm.models.checks import check_kernels, check_model, check_tokenizer, end_ids
from namm_llm.models.fingerprint import fingerprint
from namm_llm.models.gguf import is_gguf
from namm_llm.models.grammar import Grammars
from namm_llm.models.load_errors import as_model_error
from namm_llm.models.locate import locate
from namm_llm.models.packed_model import PACKED, check_mergeable, load_packed_file, pack_model
from namm_llm.models.placement import device_map_of, parse_dtype
from namm_llm.models.quiet import quiet
from namm_llm.models.rope_scaling import stretch
from namm_llm.models.vision.vision import Vision, load_processor, sees
from namm_llm.pages import release_free_pages

# up to this, a CPU computes in float32: half precision is slower on most of them
_SMALL_NBYTES = 2 * 2**30


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Weights and tokenizer, with what the rest needs to know of them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    model_id: str
    """The name that it was loaded by."""
    folder: Path | None
    """The model folder or GGUF file; None for a Hugging Face id."""
    quantization: str | None
    """As `LoadConfig` names it, or as a GGUF file does, such as Q4_K_M."""
    positions: int | None
    """Trained ones; None if the model has no limit."""
    end_ids: frozenset[int]
    """Tokens that end a text."""
    load_seconds: float
    packed_fingerprint: str = ""
    """Of weights that are packed, which the model does not show as parameters."""
    adapter: Adapter | None = None
    """What was added to the weights."""
    vision: Vision | None = None
    """How it sees; None for a model of text."""

    @property
    def device(self) -> torch.device:
        """Where the input ids go."""
        return device_of(self.model.get_input_embeddings())

    @property
    def vocabulary(self) -> int:
        """Token ids that the model knows."""
        return int(cast(torch.nn.Embedding, self.model.get_input_embeddings()).num_embeddings)

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer of the `tokenizers` library: without state, so any thread may use it."""
        return cast(Tokenizer, self.tokenizer.backend_tokenizer)

    @property
    def footprint_bytes(self) -> int:
        """Memory of the weights."""
        return _footprint(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Of weights and tokenizer; quantised weights, or ones with an adapter, are others."""
        found = self.packed_fingerprint or fingerprint(self.model, self.tokenizer)
        return found if self.adapter is None else self.adapter.fingerprint_with(found)

    @cached_property
    def grammars(self) -> Grammars:
        """What makes answers follow a schema. UsageError if the extra `structured` is not
        installed.
        """
        return Grammars(self.tokenizer, self.vocabulary, self.end_ids)


_LOADED: WeakValueDictionary[tuple[object, ...], LoadedModel] = WeakValueDictionary()
_LOADING = threading.Lock()


@takes_settings("load_model", settings_of("load"))
def load_model(model: str | os.PathLike[str] = DEFAULT_MODEL, **settings: Any) -> LoadedModel:
    """The model; while somebody holds it, the same settings give the same object again.

    device: auto, cpu, cuda, cuda:1, mps, a device map, or balanced (over all GPUs). Raises
    ModelError if it cannot be loaded, UsageError for wrong settings.
    """
    given = LoadConfig(model=model, **settings)
    name, dtype, placement = str(model), parse_dtype(given.dtype), device_map_of(given.device)
    folder = locate(model)
    options: dict[str, Any] = {
        "revision": given.revision,
        "local_files_only": given.local_files_only or folder is not None,
        "trust_remote_code": given.trust_remote_code,
    }
    source = str(folder.resolve()) if folder else name
    where = (
        tuple(sorted((part, str(at)) for part, at in placement.items()))
        if isinstance(placement, dict)
        else placement
    )
    adapter = None if given.adapter is None else read_adapter(given.adapter)
    state = _changed(folder), adapter and adapter.key, given.quantization, given.scaling
    key = (source, name, state, where, dtype, *options.values())
    with _LOADING:  # two threads that want the same weights must not both load them
        loaded = _LOADED.get(key)
        if loaded is None:
            if folder is not None and is_gguf(folder):
                loaded = _load_file(name, folder, given, placement, dtype, adapter)
            else:
                loaded = _load(name, folder, given, placement, dtype, options, adapter)
            _LOADED[key] = loaded
            release_free_pages()  # what came and went while weights were read and packed
    return loaded


def _changed(folder: Path | None) -> int:
    """When the folder's files were last written, so that newly trained weights are loaded again."""
    if folder is None:
        return 0
    files = folder.iterdir() if folder.is_dir() else [folder]
    return max(path.stat().st_mtime_ns for path in files)


def _load_file(
    name: str,
    path: Path,
    given: LoadConfig,
    placement: dict[str, Any] | str,
    dtype: torch.dtype | Literal["auto"],
    adapter: Adapter | None,
) -> LoadedModel:
    """The model of a GGUF file, which says itself how its weights are quantised."""
    if given.quantization is not None:
        raise UsageError(
            f"{name} is a GGUF file, whose weights are quantised already; leave quantization out."
        )
    start = time.perf_counter()
    if not isinstance(placement, dict) or list(placement) != [""]:
        raise UsageError("a GGUF file is loaded on one device; name it, for example device='cpu'.")
    device = torch.device(placement[""])
    scaling, own_dtype = given.scaling, None if dtype == "auto" else dtype
    loaded = load_packed_file(
        path, device, own_dtype, lambda own: stretch(own, scaling, name), adapter
    )
    check_tokenizer(loaded.tokenizer, name)
    return LoadedModel(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        model_id=name,
        folder=path,
        quantization=loaded.quantization,
        positions=loaded.positions,
        end_ids=frozenset(loaded.end_ids),
        load_seconds=time.perf_counter() - start,
        # other positions are another model
        packed_fingerprint=loaded.fingerprint + ("" if scaling is None else f"-{scaling}"),
        adapter=adapter,
    )


def _load(
    name: str,
    folder: Path | None,
    given: LoadConfig,
    placement: dict[str, Any] | str,
    dtype: torch.dtype | Literal["auto"],
    settings: dict[str, Any],
    adapter: Adapter | None,
) -> LoadedModel:
    start, quantization = time.perf_counter(), given.quantization
    source = str(folder or name)
    check_mergeable(adapter, quantization, on_cpu=placement == {"": "cpu"})
    with as_model_error(name, settings["revision"]), quiet():
        config = AutoConfig.from_pretrained(source, **settings)
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(
                f"{name} is an encoder-decoder ({config.model_type}); use a decoder model such as "
                "Llama."
            )
        stretch(config, given.scaling, name)
        tokenizer = AutoTokenizer.from_pretrained(source, **settings)
        check_tokenizer(tokenizer, name)
        processor = load_processor(source, **settings) if sees(config, name) else None
        kind: Any = AutoModelForCausalLM if processor is None else AutoModelForImageTextToText
        loaded: Any = kind.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            device_map=placement,
            quantization_config=_quantization_config(quantization, placement, dtype, config),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to say which in one line
            **settings,
        )
    model, report = cast("tuple[Any, dict[str, Any]]", loaded)
    check_model(model, report, name)
    # no card and no disk holds a part of it
    on_cpu = all(weight.device.type == "cpu" for weight in model.parameters())
    if dtype == "auto" and quantization is None and on_cpu and _footprint(model) <= _SMALL_NBYTES:
        model.float()
        model.config.dtype = torch.float32
    model.eval().requires_grad_(False)
    if adapter is not None:
        adapter.merge_into(model, name)
    packed = ""
    if quantization in ("nf4", "fp4") and on_cpu:
        check_kernels(model, name)
    if quantization in PACKED and on_cpu:
        packed = f"{fingerprint(model, tokenizer)[:27]}-{quantization}"
        pack_model(model, cast(Literal["int4", "int8"], quantization))
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        model_id=name,
        folder=folder,
        quantization=quantization,
        positions=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        end_ids=end_ids(model, tokenizer),
        load_seconds=time.perf_counter() - start,
        packed_fingerprint=packed,
        adapter=adapter,
        vision=None if processor is None else Vision(model, processor, _encoder(tokenizer)),
    )


def _encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    backend = tokenizer.backend_tokenizer
    return lambda text: list(backend.encode(text, add_special_tokens=False).ids)


def _quantization_config(
    quantization: Quantization | None,
    placement: dict[str, Any] | str,
    dtype: torch.dtype | Literal["auto"],
    config: Any,
) -> transformers.BitsAndBytesConfig | None:
    make: Any = transformers.BitsAndBytesConfig
    if quantization is None or (quantization in PACKED and placement == {"": "cpu"}):
        return None  # as stored, or packed once it is loaded
    if quantization == "int4":
        raise UsageError("int4 weights are for device='cpu'; on a GPU use quantization='nf4'.")
    if quantization == "int8":
        return cast(transformers.BitsAndBytesConfig, make(load_in_8bit=True))
    compute = (
        dtype
        if dtype != "auto"
        else getattr(config.get_text_config(), "dtype", None) or torch.float32
    )
    four_bit = make(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_use_double_quant=True,
    )
    return cast(transformers.BitsAndBytesConfig, four_bit)


def _footprint(model: Any) -> int:
    return int(model.get_memory_footprint())
