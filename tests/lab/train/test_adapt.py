"""`namm-llm train adapt`: gradients through what an evicting cache keeps, learning, resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from peft import PeftModel
from transformers import AutoModelForCausalLM

from namm_lab.train.adapt import AdapterTraining, AdaptSettings, TextSource, load_base
from namm_lab.train.adapt.reading import read
from namm_lab.train.adapt.samples import AdaptSample
from namm_lab.train.adapt.visible import logits_of
from namm_llm import CacheConfig, Runner, UsageError, make_cache_config
from namm_llm.cli.main import main
from namm_llm.models.loading import LoadedModel, load_model
from tests.tiny import save_tiny_gemma

# peft asks transformers for a name of old
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

SENTENCE = "The access code of the {} vault is {}, and who signs travel requests is the head.\n"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for part in range(12):
        lines = (SENTENCE.format("amber" if n % 2 else "lazy", n % 7) for n in range(60))
        (folder / f"{part}.txt").write_text(f"Part {part}.\n" + "".join(lines))
    return folder


@pytest.fixture
def base(tiny_folder: Path) -> LoadedModel:
    """Of its own, because training changes it."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval().requires_grad_(False)
    loaded = load_model(tiny_folder)
    values = {name: getattr(loaded, name) for name in loaded.__dataclass_fields__}
    return LoadedModel(**{**values, "model": model})


def evicting(scope: str = "model", policy: str = "replay") -> CacheConfig:
    return make_cache_config(policy, budget=0.25, interval=16, budget_scope=scope, sinks=1)


def sample_of(source: TextSource) -> AdaptSample:
    return source.sample("repeat", "a seed")


@pytest.mark.parametrize(
    ("policy", "scope"), [("replay", "model"), ("replay", "head"), ("streaming_llm", "head")]
)
def test_the_trained_pass_attends_as_the_cache_does(
    base: LoadedModel, texts: Path, policy: str, scope: str
) -> None:
    sample = sample_of(TextSource(base, "train", texts, 48))
    config = evicting(scope, policy)
    reading = read(base.model, sample, config)
    ids = torch.tensor([*sample.document, *sample.prompt, *sample.target])
    found = logits_of(base.model, ids, reading.evicted_at, len(sample.target))
    full = logits_of(base.model, ids, {}, len(sample.target))
    torch.testing.assert_close(found, reading.logits, rtol=1e-4, atol=1e-4)
    assert (full - reading.logits).abs().max() > 0.1  # it was evicted, and that can be seen
    assert set(reading.evicted_at) == {0, 1}


def test_layers_with_a_sliding_window_keep_theirs(texts: Path, tmp_path: Path) -> None:
    base = load_base(save_tiny_gemma(tmp_path / "gemma", window=32))
    sample = sample_of(TextSource(base, "train", texts, 48))
    reading = read(base.model, sample, evicting("head"))
    ids = torch.tensor([*sample.document, *sample.prompt, *sample.target])
    found = logits_of(base.model, ids, reading.evicted_at, len(sample.target))
    torch.testing.assert_close(found, reading.logits, rtol=1e-4, atol=1e-4)
    assert set(reading.evicted_at) == {1}


def test_nothing_flows_back_to_a_token_after_it_was_evicted(base: LoadedModel) -> None:
    """The embedding of an evicted token gets no gradient in a model of one layer."""
    model = base.model
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    ids = torch.arange(5, 45)
    at = torch.full((2, 40), 40)
    at[:, 3:10] = 20  # gone before token 20 was read
    states: list[torch.Tensor] = []

    def keep(module: object, inputs: object, out: torch.Tensor) -> torch.Tensor:
        states.append(out.requires_grad_())
        return states[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    logits = logits_of(model, ids, {0: at}, 10)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.square().sum(), states)
    reached = gradient[0].abs().amax(1) > 0
    assert reached.tolist()[:20] == [True] * 3 + [False] * 7 + [True] * 10


@pytest.mark.parametrize("loss", ["next", "repeat"])
def test_it_learns(base: LoadedModel, texts: Path, loss: str) -> None:
    settings = AdaptSettings(losses=(loss,), length=48, steps=25, batch=2, rate=0.02)
    source = TextSource(base, "train", texts, 48)
    training = AdapterTraining(base.model, source, evicting(), settings)
    sample = source.sample(loss, "another seed")
    before = float(training.loss(sample).detach())
    for number in range(settings.steps):
        training.step(number)
    assert float(training.loss(sample).detach()) < before - 1.0


def test_splits_share_no_text(base: LoadedModel, texts: Path) -> None:
    lines = [
        set(TextSource(base, split, texts, 32).text.split("\n\n"))
        for split in ("train", "validation")
    ]
    assert not lines[0] & lines[1]


# -- the command -----------------------------------------------------------------------------------

QUICK = (
    "--policy replay --budget 0.25 --interval 16 --length 40 --batch 2 --rate 0.02 --held-out 1"
).split()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_folder)
    return tmp_path


def adapt(texts: Path, *arguments: str) -> Result:
    given = ["train", "adapt", "--model", "./model", "--texts", str(texts), *QUICK, *arguments]
    return CliRunner().invoke(main, given, prog_name="namm-llm")


def test_resumed_training_equals_training_that_never_stopped(folder: Path, texts: Path) -> None:
    whole = adapt(texts, "--steps", "4", "-o", "whole")
    assert whole.exit_code == 0, whole.output
    for _ in range(4):
        part = adapt(texts, "--steps", "4", "-o", "parts", "--minutes", "0.000001")
        assert part.exit_code == 0, part.output
    for name in ("adapter_model.safetensors", "log.jsonl", "report.json"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()
    assert "4 steps in" in part.output
    again = adapt(texts, "--steps", "4", "-o", "parts")  # nothing left to do
    assert again.exit_code == 0, again.output


def test_the_report_compares_with_the_full_cache(folder: Path, texts: Path) -> None:
    done = adapt(texts, "--steps", "2")
    assert done.exit_code == 0, done.output
    rows = json.loads(Path("adapter", "report.json").read_text())
    plain = [row for row in rows if row["cache"] == "full" and not row["adapted"]]
    assert [row["agreement"] for row in plain] == [1.0, 1.0]
    assert {row["loss"] for row in rows} == {"next", "repeat"}
    assert len(rows) == 8


def test_what_was_trained_is_loaded_as_peft_loads_it(folder: Path, texts: Path) -> None:
    assert adapt(texts, "--steps", "2").exit_code == 0
    plain = AutoModelForCausalLM.from_pretrained("model").eval()
    peft = PeftModel.from_pretrained(plain, "adapter").merge_and_unload()
    ids = torch.arange(3, 40)[None]
    ours = Runner.load("./model", adapter="adapter").loaded.model
    torch.testing.assert_close(ours(ids).logits, peft(ids).logits)
    base = Runner.load("./model").loaded.model
    assert (base(ids).logits - peft(ids).logits).abs().max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rank", "0"), "rank must be 1 or more"),
        (("--losses", "next,best"), "a loss is one of next, repeat, full, not 'best'"),
        (("--length", "8"), "never reach an eviction step at an interval of 16"),
        (("--length", "4000"), "do not fit"),
        (("--quantization", "int8"), "trains float weights"),
        (("--adapter", "other"), "makes a new adapter of the plain model"),
        (("--held-out", "0"), "held-out must be 1 or more"),
        (("--policy", "full"), "takes no budget"),
    ],
)
def test_wrong_input_is_one_line(
    folder: Path, texts: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = adapt(texts, *arguments)
    assert done.exit_code != 0
    error = done.exception if not isinstance(done.exception, SystemExit) else None
    assert message in (done.output + str(error or ""))
    assert not Path("adapter").exists()


def test_other_settings_do_not_go_on(folder: Path, texts: Path) -> None:
    assert adapt(texts, "--steps", "2").exit_code == 0
    other = adapt(texts, "--steps", "2", "--rank", "4")
    assert other.exit_code != 0
    assert "was begun with rank 8, not 4" in other.output + str(other.exception)
    Path("file").write_text("")
    taken = adapt(texts, "-o", "file")
    assert "file exists already" in taken.output + str(taken.exception)


def test_too_little_text(base: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A few words.\n")
    with pytest.raises(UsageError, match="a sample needs 200: add texts"):
        TextSource(base, "train", tmp_path, 100)
