"""Short texts that are the same for the same weights and tokenizer, or chat template, and almost
surely others otherwise.

That of a model looks at the configuration, a few numbers of every weight and the vocabulary, so it
costs milliseconds, not a pass over the weights.
"""

from __future__ import annotations

import hashlib
import json

from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SAMPLE = 8  # numbers of each weight
_VOLATILE = (
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "attn_implementation",
    "_attn_implementation",
)


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hexadecimal digits."""
    digest = hashlib.sha256()
    config = {key: value for key, value in model.config.to_dict().items() if key not in _VOLATILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.is_meta:  # kept on disk by a device map
            continue
        flat = weight.detach().flatten()
        digest.update(
            flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE].float().cpu().numpy().tobytes()
        )
    for token, number in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{number} {token!r} ".encode())
    return digest.hexdigest()[:32]


def template_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hexadecimal digits of the chat template, or of all of them where there are several; empty
    if there is none.
    """
    template = tokenizer.chat_template
    return (
        hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:32]
        if template
        else ""
    )
