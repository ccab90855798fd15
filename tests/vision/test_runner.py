"""`Runner` with pictures: answers as of transformers, caches and memories that go by the pixels."""

from __future__ import annotations

import base64
import gc
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from namm_llm import Document, DocumentError, ModelError, Runner, UsageError
from namm_llm.models.vision.picture import Picture, picture_of
from namm_llm.models.vision.tokens import FIRST, is_picture, picture_ids
from tests.vision.folders import pixels, processor_of
from tests.vision.models import MODELS

SEEING = [name for name in MODELS if name != "qwen2_vl"]


def asked(*pictures: Any, text: str = "What is this?") -> list[dict[str, Any]]:
    """One message: pictures, and a text."""
    parts = [{"type": "image", "image": each} for each in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def data_url(array: np.ndarray[Any, Any]) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEEING)
def test_an_answer_is_that_of_transformers(name: str, folder_of: Callable[[str], Path]) -> None:
    runner = Runner.load(folder_of(name), chunk=7)
    # OneVision gives several pictures less detail than one; here each is read as if it were alone
    pictures = [pixels(1), pixels(2, 40, 21)][: 1 if name == "llava_onevision" else 2]
    messages = asked(*pictures)
    answer = runner.chat(messages, max_tokens=6, logprobs=0)
    ids = torch.tensor([runner.session.pictures.token_ids(messages)])
    kind = {"return_row_col_info": True} if name in ("idefics3", "smolvlm") else {}
    inputs = processor_of(name)(images=[pictures], return_tensors="pt", **kind)
    inputs = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
    own = runner.loaded.model.generate(input_ids=ids, **inputs, max_new_tokens=6, do_sample=False)
    tokens = [each.token_id for each in answer.logprobs or ()]
    assert tokens == own[0, ids.shape[1] :].tolist()[: len(tokens)]
    assert answer.usage.input_tokens == ids.shape[1]


def test_two_pictures_of_one_size_never_share_a_cache(runner: Runner) -> None:
    first, other = pixels(1), pixels(1)
    other[3, 4, 1] ^= 1  # one bit of one pixel
    before = runner.chat(asked(first), max_tokens=4)
    again = runner.chat(asked(first.copy()), max_tokens=4)
    assert again.usage.cached_tokens > 9  # the picture's nine tokens among them
    assert again.text == before.text
    then = runner.chat(asked(other), max_tokens=4, logprobs=1)
    begins = runner.session.pictures.token_ids(asked(other)).index(
        runner.loaded.vision.token_id  # type: ignore[union-attr]
    )
    assert then.usage.cached_tokens <= begins
    fresh = runner.with_cache().chat(asked(other), max_tokens=4, logprobs=1)
    assert then.logprobs == fresh.logprobs
    assert runner.render_chat(asked(first)) != runner.render_chat(asked(other))


def test_ids_of_pictures_are_past_every_vocabulary_and_their_own() -> None:
    pictures = [Picture(pixels(seed)) for seed in range(40)]
    ids = [id for each in pictures for id in picture_ids(each.sha256, 50)]
    assert len(set(ids)) == 40 * 50
    assert all(is_picture(id) and id < 2**62 for id in ids)
    assert not is_picture(FIRST - 1)
    flat, tall = (Picture(np.zeros(shape, np.uint8)) for shape in ((2, 8, 3), (8, 2, 3)))
    assert flat.sha256 != tall.sha256


def test_a_conversation_goes_on_and_its_picture_is_encoded_once(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision, seen = runner.loaded.vision, list[str]()
    assert vision is not None
    own = vision._computed
    monkeypatch.setattr(
        vision, "_computed", lambda each, mark: seen.append(mark) or own(each, mark)
    )
    talk = asked(pixels(31))
    first = runner.chat(talk, max_tokens=5)
    talk += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And?"}]
    second = runner.chat(talk, max_tokens=5)
    assert second.usage.cached_tokens >= first.usage.input_tokens
    assert len(seen) == 1
    memory = runner.remember(talk[:1] + talk[1:2])
    assert memory is not None
    other = runner.with_cache(interval=32)
    other.recall(memory)
    assert other.chat(talk, max_tokens=5).usage.cached_tokens >= first.usage.input_tokens


def test_what_disfavours_repetition_and_guesses_tokens_knows_no_pictures(runner: Runner) -> None:
    messages = asked(pixels(1), pixels(1), text="aaaa aaaa aaaa")
    plain = runner.chat(messages, max_tokens=12, prompt_lookup=0)
    assert runner.chat(messages, max_tokens=12, prompt_lookup=6).text == plain.text
    runner.chat(messages, max_tokens=4, repetition_penalty=1.3)


# -- films -----------------------------------------------------------------------------------------


def answers(memory: Document) -> list[Any]:
    """What an answer's tokens are, and how likely."""
    found = memory.ask("What?", max_tokens=4, logprobs=1).logprobs
    return [(each.token_id, round(each.logprob, 4)) for each in found or ()]


@pytest.mark.parametrize("policy", ["full", "replay", "novelty", "kvzip"])
def test_a_film_is_read_asked_saved_and_opened(
    folder_of: Callable[[str], Path], tmp_path: Path, policy: str
) -> None:
    budget = {} if policy == "full" else {"policy": policy, "budget": 0.25}
    runner = Runner.load(folder_of("llava"), interval=64, chunk=64, **budget)
    film = np.stack([pixels(seed) for seed in range(21)])  # more than are encoded together
    memory = runner.read(film)
    kept = memory.cache.stats()
    assert kept.seen_tokens == 21 * 9 + runner.session.format.head_tokens
    assert policy == "full" or kept.stored_tokens < 0.45 * kept.seen_tokens
    path = tmp_path / "film.namm"
    memory.save(path)
    opened = runner.open(path)
    assert answers(opened) == answers(memory)
    assert opened.fingerprint == memory.fingerprint


def test_a_memory_goes_by_the_pixels(runner: Runner, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(pixels(number)).save(tmp_path / f"frame {number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    folder = runner.read(tmp_path)
    listed = runner.read([pixels(0), Image.fromarray(pixels(1)), tmp_path / "frame 2.png"])
    floats = runner.read(np.stack([pixels(number) for number in range(3)]) / 255)
    assert folder.fingerprint == listed.fingerprint == floats.fingerprint
    assert answers(folder) == answers(listed)
    assert runner.read([pixels(0), pixels(2), pixels(1)]).fingerprint != folder.fingerprint
    with_text = runner.read(["First: ", pixels(0), " then: ", pixels(1), pixels(2)])
    assert with_text.fingerprint != folder.fingerprint
    extended = runner.read([pixels(0)]).extend([pixels(1), pixels(2)])
    assert answers(extended) == answers(folder)


def test_pixels_are_freed_once_they_are_read(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("namm_llm.models.vision.vision._RECENT_NBYTES", 3000)
    vision, most = runner.loaded.vision, 0
    assert vision is not None

    def count(done: int, total: int) -> None:
        nonlocal most
        most = max(most, len(vision._by_mark))

    runner.read([pixels(seed) for seed in range(100)], on_progress=count)
    gc.collect()
    assert most <= 40
    assert len(vision._by_mark) <= 2


def test_a_question_may_hold_a_picture(runner: Runner) -> None:
    memory = runner.read("The lamp is green. " * 5)
    found = memory.ask(asked(pixels(1)), max_tokens=3, logprobs=0)
    other = memory.ask(asked(pixels(2)), max_tokens=3, logprobs=0)
    assert found.usage == other.usage
    assert found.logprobs != other.logprobs


# -- where pixels come from ------------------------------------------------------------------------


def test_a_picture_is_the_same_from_wherever_it_comes(tmp_path: Path) -> None:
    array = pixels(3)
    path = tmp_path / "a b.PNG"
    Image.fromarray(array).save(path)
    with_alpha = np.dstack([array, np.full(array.shape[:2], 9, np.uint8)])
    sources = [array, array / 255, torch.from_numpy(array), Image.fromarray(array), path, str(path)]
    sources += [data_url(array), path.read_bytes(), with_alpha, Picture(array)]
    assert {picture_of(source).sha256 for source in sources} == {Picture(array).sha256}
    grey = picture_of(array[..., 0])
    assert (grey.pixels == array[..., :1]).all()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("https://example.org/cat.png", "never fetched, and https: is not"),
        ("file:///etc/hostname", "never fetched, and file: is not"),
        ("data:text/plain;base64,AAAA", "never fetched, and data: is not"),
        ("data:image/png;base64,@@", "is no base64"),
        (np.zeros((4, 4, 7), np.uint8), "not 4x4x7 uint8"),
        (np.zeros((4, 4, 3), np.int64), "not 4x4x3 int64"),
        (object(), "not object object"),
    ],
)
def test_what_is_no_picture_is_refused(source: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        picture_of(source)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DocumentError, match=r"x\.png is no picture"):
        picture_of(tmp_path / "x.png")
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        picture_of(tmp_path / "y.png")


def test_without_pillow_the_extra_is_named(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(pixels(1)).save(path)
    folder = folder_of("llava_next")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match=r"pip install 'namm-llm\[vision\]'"):
        picture_of(path)
    with pytest.raises(UsageError, match=r"pip install 'namm-llm\[vision\]'"):
        Runner.load(folder, chunk=33)


# -- models that do not see ------------------------------------------------------------------------


def test_a_model_of_text_refuses_pictures_in_one_line(tiny_folder: Path) -> None:
    runner = Runner.load(tiny_folder)
    with pytest.raises(UsageError, match=r"^the model reads text only.*the type image;"):
        runner.chat(asked(pixels(1)))
    with pytest.raises(UsageError, match=r"reads text only, and this holds a picture; use a model"):
        runner.read([pixels(1)])


def test_positions_with_several_coordinates_are_refused(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="is a qwen2_vl, with which a Runner cannot see"):
        Runner.load(folder_of("qwen2_vl"))


def test_a_text_cannot_smuggle_in_a_picture(runner: Runner) -> None:
    with pytest.raises(UsageError, match="shows 2 pictures where the messages hold 1"):
        runner.chat(asked(pixels(1), text="<image>"))
    mark = f"\uf8f0{'0' * 64}\uf8f1"  # of no picture
    assert runner.chat(asked(pixels(1), text=f"a{mark}b"), max_tokens=2).usage.output_tokens
