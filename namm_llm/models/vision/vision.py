"""`Vision`: how one model sees: its picture processor, its tower, and the tokens of a picture.

A picture goes through the tower once. What comes out waits under the picture's ids until the
decoder reads them, and is freed when nobody waits for it.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from namm_llm.cache.transformers import device_of
from namm_llm.errors import ModelError, UsageError
from namm_llm.models.vision.parts import mark_of
from namm_llm.models.vision.picture import Picture
from namm_llm.models.vision.tokens import FIRST, picture_ids

KINDS = ("llava", "llava_next", "llava_next_video", "llava_onevision", "idefics3", "smolvlm")
"""Architectures that a `Runner` sees with: tried, and with one position a token."""
_TILED = ("idefics3", "smolvlm")
_RECENT_NBYTES = 64 * 2**20  # of pictures that are not encoded again when they come again


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture as the decoder reads it."""

    mark: str
    """What stands for it in a text."""
    ids: list[int]
    """Tokens of the picture, and those that the model wants around them."""
    features: Tensor
    """`[n, D]`, one row for each id past the vocabulary."""

    def place(self, id: int) -> int:
        """The row of one of its ids."""
        return self._places[id]

    @cached_property
    def _places(self) -> dict[int, int]:
        own = (id for id in self.ids if id >= FIRST)
        return {id: row for row, id in enumerate(own)}

    def is_among(self, ids: Sequence[int]) -> bool:
        """Whether some of its tokens are among these."""
        return any(id in self._places for id in ids)


class Vision:
    """What turns pictures into tokens of one model. Used by the thread that owns the model.

    encode_text: ids of a text that may name special tokens.
    """

    def __init__(
        self, model: PreTrainedModel, processor: Any, encode_text: Callable[[str], list[int]]
    ) -> None:
        config = model.config
        self._kind = str(config.model_type)
        self._processor = processor
        self._encode_text = encode_text
        own = getattr(config, "image_token_id", None)
        self.token_id = int(config.image_token_index if own is None else own)
        """Of the vocabulary: what a chat template writes for a picture."""
        self._features = _features_of(model)
        self._device = model.device
        self._dtype = model.dtype
        self._by_mark: WeakValueDictionary[str, Encoded] = WeakValueDictionary()
        self._by_id: WeakValueDictionary[int, Encoded] = WeakValueDictionary()
        self._recent: OrderedDict[str, Encoded] = OrderedDict()
        _OF[model] = self

    def encode(self, pictures: Sequence[Picture]) -> tuple[Encoded, ...]:
        """The pictures; hold them until the decoder has read them."""
        return tuple(self._encode(picture) for picture in pictures)

    def find(self, mark: str) -> Encoded | None:
        """The picture of a mark, if somebody holds it."""
        return self._by_mark.get(mark)

    def rows(self, ids: Sequence[int]) -> Tensor:
        """Rows `[n, D]` for ids past the vocabulary."""
        found = [self._by_id.get(id) for id in ids]
        assert all(found), "pictures are held until they are read"
        return torch.stack(
            [each.features[each.place(id)] for each, id in zip(found, ids, strict=True) if each]
        )

    def _encode(self, picture: Picture) -> Encoded:
        mark = mark_of(picture)
        found = self._by_mark.get(mark)
        if found is None:
            found = self._computed(picture, mark)
            self._by_mark[mark] = found
            self._by_id.update({id: found for id in found.ids if id >= FIRST})
        self._recent[mark] = found
        self._recent.move_to_end(mark)
        while sum(each.features.nbytes for each in self._recent.values()) > _RECENT_NBYTES:
            self._recent.popitem(last=False)
        return found

    @torch.no_grad()
    def _computed(self, picture: Picture, mark: str) -> Encoded:
        tiled = {"return_row_col_info": True} if self._kind in _TILED else {}
        inputs = dict(self._processor(images=[picture.pixels], return_tensors="pt", **tiled))
        rows, columns = (inputs.pop(name, [[0]])[0][0] for name in ("rows", "cols"))
        features = self._features(
            {
                name: value.to(self._device, self._dtype if value.is_floating_point() else None)
                for name, value in inputs.items()
                if isinstance(value, Tensor)
            }
        )
        if self._kind in _TILED:
            count = features.shape[0] // (rows * columns + 1)
            ids = self._tile_ids(rows, columns, count)
        else:
            ids = [self.token_id] * len(features)
        own = iter(picture_ids(picture.sha256, len(features)))
        ids = [next(own) if id == self.token_id else id for id in ids]
        assert next(own, None) is None, "a picture has one token for each row"
        return Encoded(mark, ids, features)

    def _tile_ids(self, rows: int, columns: int, count: int) -> list[int]:
        """Ids around and between the tiles of a picture, as Idefics3 and SmolVLM were trained."""
        around, tile = "<fake_token_around_image>", [self.token_id] * count
        ids = list[int]()
        for row in range(rows):
            for column in range(columns):
                ids += self._encode_text(f"{around}<row_{row + 1}_col_{column + 1}>") + tile
            ids += self._encode_text("\n")
        before = "\n" if rows else ""
        return [
            *ids,
            *self._encode_text(f"{before}{around}<global-img>"),
            *tile,
            *self._encode_text(around),
        ]


_OF: WeakKeyDictionary[PreTrainedModel, Vision] = WeakKeyDictionary()


def embedded(model: PreTrainedModel, ids: Tensor) -> Tensor | None:
    """Embeddings `[B, T, D]` of ids `[B, T]` on the CPU if pictures are among them, else None."""
    vision = _OF.get(model)
    if vision is None or not bool((shown := ids >= FIRST).any()):
        return None
    embed = model.get_input_embeddings()
    found: Tensor = embed(ids.masked_fill(shown, vision.token_id).to(device_of(embed)))
    found[shown.to(found.device)] = vision.rows(ids[shown].tolist()).to(found)
    return found


def _features_of(model: Any) -> Callable[[dict[str, Tensor]], Tensor]:
    """What the tower and the map behind it make of a processed picture, `[n, D]`."""
    taken = inspect.signature(model.get_image_features).parameters

    def features(inputs: dict[str, Tensor]) -> Tensor:
        known = {name: value for name, value in inputs.items() if name in taken}
        found = model.get_image_features(**known)
        found = getattr(found, "pooler_output", found)
        parts = list(found) if isinstance(found, (list, tuple)) else [found]
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])

    return features


def sees(config: Any, name: str) -> bool:
    """Whether a model is one of pictures too. ModelError if a `Runner` does not see with it."""
    kind = config.model_type
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or not hasattr(
        config, "vision_config"
    ):
        return False
    if kind not in KINDS:
        raise ModelError(
            f"{name} is a {kind}, with which a Runner cannot see; use one of {', '.join(KINDS)}, "
            "or ManagedCache with the model's own generate."
        )
    return True


def load_processor(source: str, **settings: Any) -> Any:
    """The picture processor of a model, in its version for pillow. UsageError without pillow."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "a model that sees needs pillow: pip install 'namm-llm[vision]'."
        ) from error
    from transformers import AutoImageProcessor

    load: Any = AutoImageProcessor.from_pretrained
    return load(source, backend="pil", **settings)
