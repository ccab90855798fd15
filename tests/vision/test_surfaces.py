"""Pictures through the server, LangChain, LlamaIndex and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from langchain_core.messages import HumanMessage
from langchain_namm import ChatNamm
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.namm import NammLLM
from PIL import Image
from starlette.testclient import TestClient

from namm_llm import Runner
from namm_llm.cli.main import main
from namm_llm.documents import MemoryStore
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig
from tests.vision.folders import pixels
from tests.vision.test_runner import asked, data_url

URL = data_url(pixels(1))


@pytest.fixture
def client(runner: Runner, tmp_path: Path) -> Iterator[TestClient]:
    app = make_app(runner, ServerConfig(name="seeing"), MemoryStore(tmp_path / "memories"))
    with TestClient(app, "http://localhost") as client:
        yield client


def body(**part: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "What is this?"}, part]
    return {
        "model": "seeing",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 4,
        "temperature": 0,
    }


def test_the_server_takes_pictures_as_data_urls(client: TestClient, runner: Runner) -> None:
    given = body(type="image_url", image_url={"url": URL, "detail": "low"})
    found = client.post("/v1/chat/completions", json=given)
    assert found.status_code == 200
    own = runner.chat(given["messages"], max_tokens=4, temperature=0)
    assert found.json()["choices"][0]["message"]["content"] == own.text
    assert found.json()["usage"]["prompt_tokens"] == own.usage.input_tokens
    count = client.post("/tokenize", json={"model": "seeing", "messages": given["messages"]})
    assert count.json()["count"] == own.usage.input_tokens
    assert max(count.json()["tokens"]) < runner.loaded.vocabulary
    parts = [{"type": "input_text", "text": "What is this?"}]
    parts += [{"type": "input_image", "image_url": URL}]
    response = {"model": "seeing", "input": [{"role": "user", "content": parts}]}
    answered = client.post(
        "/v1/responses", json={**response, "max_output_tokens": 4, "temperature": 0}
    ).json()
    assert answered["output"][0]["content"][0]["text"] == own.text


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}, "never fetched"),
        ({"type": "image_url", "image_url": "http://x.org/a.png"}, "never fetched"),
        ({"type": "image_url", "image_url": {"url": "notes/a:b.png"}}, "never fetched"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "no picture"),
        ({"type": "image_url"}, "image_url is missing"),
        ({"type": "image", "image": "a.png"}, "'image' is not supported, only 'text', 'image_url'"),
        ({"type": "video", "video": "frames"}, "'video' is not supported"),
        ({"type": "input_audio", "input_audio": {}}, "'input_audio' is not supported"),
    ],
)
def test_the_server_fetches_nothing_and_opens_no_file(
    client: TestClient, part: dict[str, Any], says: str
) -> None:
    found = client.post("/v1/chat/completions", json=body(**part))
    assert found.status_code == 400
    assert says in found.json()["error"]["message"]
    assert "\n" not in found.json()["error"]["message"]


def test_langchain(folder_of: Callable[[str], Path], runner: Runner) -> None:
    folder = folder_of("llava")
    chat = ChatNamm(model=str(folder), max_tokens=4)
    text = {"type": "text", "text": "What is this?"}
    encoded = URL.partition(",")[2]
    blocks = [
        {"type": "image", "base64": encoded, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": URL}},
    ]
    own = runner.chat(asked(pixels(1)), max_tokens=4)
    for block in blocks:
        assert chat.invoke([HumanMessage([block, text])]).content == own.text
    assert chat.profile is not None
    assert chat.profile["image_inputs"] is True


def test_llama_index(folder_of: Callable[[str], Path], runner: Runner, tmp_path: Path) -> None:
    Image.fromarray(pixels(1)).save(tmp_path / "a.png")
    llm = NammLLM(model=str(folder_of("llava")), max_tokens=4)
    own = runner.chat(asked(pixels(1)), max_tokens=4)
    blocks = [
        ImageBlock(path=tmp_path / "a.png"),
        ImageBlock(image=(tmp_path / "a.png").read_bytes()),
        ImageBlock(url=URL),
    ]
    for block in blocks:
        message = ChatMessage(role="user", blocks=[block, TextBlock(text="What is this?")])
        assert llm.chat([message]).message.content == own.text


# -- the command line ------------------------------------------------------------------------------


@pytest.fixture
def film(tmp_path: Path) -> Path:
    folder = tmp_path / "film"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(pixels(number // 3)).save(folder / f"{number:02}.png")
    return folder


def call(folder: Path, *arguments: Any) -> Result:
    found = CliRunner().invoke(main, [*map(str, arguments), "--model", str(folder)])
    assert found.exit_code == 0, found.output
    return found


def test_a_folder_of_frames_is_read_asked_and_kept(
    folder_of: Callable[[str], Path], film: Path
) -> None:
    folder = folder_of("llava")
    asking = ("ask", film, "What?", "--max-tokens", 3, "--json")
    answer = json.loads(call(folder, *asking).stdout)
    memory = Runner.load(folder).read(film)
    assert answer["text"] == memory.ask("What?", max_tokens=3).text
    call(folder, "read", film, "--name", "film")
    again = call(folder, *asking)
    assert "its memory is used" in again.stderr
    assert json.loads(again.stdout)["text"] == answer["text"]
    Image.fromarray(pixels(9)).save(film / "05.png")  # another last frame, of the same size
    other = call(folder, *asking)
    assert "its memory is used" not in other.stderr
    one = call(folder, "ask", film / "00.png", film / "01.png", "What?", "--max-tokens", 3)
    assert one.stdout.strip() or one.stdout == "\n"


def test_a_model_of_text_refuses_a_film(tiny_folder: Path, film: Path) -> None:
    found = CliRunner().invoke(main, ["ask", str(film), "What?", "--model", str(tiny_folder)])
    assert found.exit_code == 2
    assert "reads text only, and this holds a picture" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
