"""RoPE scaling as a load setting: a model reads more positions than it was trained on."""

from __future__ import annotations

from transformers import PreTrainedConfig

from namm_llm.config.load import RopeScaling
from namm_llm.errors import ModelError


def stretch(config: PreTrainedConfig, scaling: RopeScaling | None, name: str) -> None:
    """Change a model's configuration, before the model is made, to `scaling.factor` times its
    trained positions.

    Raises ModelError for a model that has no RoPE, or scales it already.
    """
    if scaling is None:
        return
    text = config.get_text_config(decoder=True)
    given = getattr(text, "rope_parameters", None)
    if not isinstance(given, dict) or "rope_theta" not in given:
        raise ModelError(f"{name} has not one RoPE for all layers; leave rope_scaling out.")
    if (kind := given.get("rope_type", "default")) != "default":
        raise ModelError(
            f"{name} scales its positions already ({kind}, {text.max_position_embeddings} "
            "positions); leave rope_scaling out."
        )
    trained = int(text.max_position_embeddings)
    text.rope_parameters = {
        **given,
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "original_max_position_embeddings": trained,
    }
    text.max_position_embeddings = int(trained * scaling.factor)
