"""What can be asked for, and what is refused in one line."""

from __future__ import annotations

import pytest

from namm_lab.bench import Benchmark, model, run_benchmark
from namm_lab.bench import contenders as contenders_module
from namm_lab.bench.estimate import beyond_positions, costs_of
from namm_llm.errors import ContextError, ModelError, NammError, UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give one of the two"),
        ({"model": "a", "shape": "tiny"}, "give one of the two"),
        ({"shape": "9b"}, "there is no shape '9b'; it is one of tiny, 100m, 1b, 8b, 70b"),
        ({"shape": "tiny", "layers": 9}, "1 to 5 layers, not 9"),
        ({"model": "a", "layers": 1}, "layers belongs to a shape"),
        (
            {"shape": "tiny", "tasks": ("speed",)},
            "no task 'speed'; it is one of prefill, decode, memory",
        ),
        ({"shape": "tiny", "tasks": ()}, "name at least one task"),
        ({"shape": "tiny", "lengths": (0,)}, "lengths must be numbers above 0, not 0"),
        ({"shape": "tiny", "runs": 0}, "runs must be at least 1, not 0"),
        ({"shape": "tiny", "policies": ("lru",)}, "no policy 'lru'"),
        ({"shape": "tiny", "budgets": ("much",)}, "'much' is not a budget"),
        (
            {"shape": "tiny", "peers": ("vllm",)},
            "no peer 'vllm'.*kvpress has its own run: make bench-kvpress",
        ),
        ({"shape": "tiny", "quantizations": ("int3",)}, "no quantization 'int3'"),
        ({"shape": "tiny", "kv_bits": ("4",)}, "no kind of kv_bits '4'; it is one of none, 8"),
        ({"shape": "tiny", "dtype": "int"}, "no dtype 'int'"),
        (
            {
                "model": "a",
                "tasks": ("needles",),
                "needles": 2,
                "texts": ("code",),
                "policies": ("namm",),
            },
            "own NAMM has random parameters.*--namm FILE",
        ),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UsageError, match=message) as error:
        Benchmark(**settings)
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_here():
    with pytest.raises(UsageError, match="there is no device meta here"):
        Benchmark(shape="tiny", device="meta").torch_device()
    with pytest.raises(UsageError, match="not 'abacus'"):
        Benchmark(shape="tiny", device="abacus").torch_device()


def test_who_is_measured():
    plan = Benchmark(
        shape="tiny",
        policies=("full", "knorm"),
        budgets=("0.25", "512"),
        peers=("transformers-whole", "transformers-fp8"),
    )
    assert [contender.label for contender in plan.contenders()] == [
        "transformers", "namm-llm", "namm-llm knorm 0.25", "namm-llm knorm 512",
        "transformers-whole", "transformers-fp8",
    ]  # fmt: skip
    alone = Benchmark(shape="tiny", peers=(), kv_bits=("none", "8"))
    assert [contender.label for contender in alone.contenders()] == [
        "namm-llm replay 0.25",
        "namm-llm replay 0.25 8-bit",
    ]


def test_a_peer_whose_package_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(contenders_module, "find_spec", lambda name: None)
    plan = Benchmark(
        shape="tiny", peers=("transformers-fp8", "transformers-hqq", "transformers-quanto")
    )
    assert plan.left_out() == [
        "transformers-hqq is left out: its backend is not installed (pip install hqq).",
        "transformers-quanto is left out: its backend is not installed (pip install "
        "optimum-quanto).",
    ]
    assert "transformers-hqq" not in [contender.name for contender in plan.contenders()]


def test_a_shape_that_does_not_fit_is_refused_with_the_arithmetic(monkeypatch):
    monkeypatch.setattr(model, "free_nbytes", lambda device: 10**10)
    plan = Benchmark(shape="8b", lengths=(32_000,), tasks=("prefill",), dtype="bfloat16")
    with pytest.raises(ModelError) as error:
        run_benchmark(plan)
    assert str(error.value).startswith(
        "8b does not fit: 8.03 billion weights of 2 bytes = 16.1 GB, and 4.2 GB for a cache of 1 "
        "x 32000 tokens, are more than the 10.0 GB"
    )
    assert "\n" not in str(error.value)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ContextError, match="131072 positions, which is less than 200000"):
        run_benchmark(Benchmark(shape="tiny", lengths=(200_000,)))


def test_the_cost_of_a_plan(tiny_folder):
    plan = Benchmark(
        shape="8b",
        lengths=(128_000,),
        budgets=("0.25", "2048"),
        quantizations=("none", "nf4"),
        dtype="bfloat16",
    )
    (plain, costs), (four_bit, _) = costs_of(plan)
    assert (plain, four_bit) == (
        "8b: 8.03 billion weights in bfloat16",
        "8b: 8.03 billion weights in nf4",
    )
    assert [label for label, _ in costs] == ["replay 0.25", "replay 2048"]
    assert (
        costs[0][1].full_nbytes == 2 * 32 * 8 * 128 * 2 * 128_000
    )  # keys and values x layers x heads x size x bytes
    ((_, [(_, cost)]),) = costs_of(Benchmark(model=str(tiny_folder), lengths=(1000,)))
    assert cost.full_nbytes == 2 * 2 * 2 * 16 * 4 * 1000
    with pytest.raises(NammError):
        costs_of(Benchmark(model=str(tiny_folder / "nothing")))


def test_the_plan_of_a_gguf_file_has_the_weights_as_they_are_stored(tmp_path):
    pytest.importorskip("gguf", reason="the package gguf, which writes the file, is not installed")
    from tests.models.gguf.files import VOCABULARY, tiny_model, write_model

    path = write_model(tmp_path / "small.gguf", tiny_model("llama", VOCABULARY), "llama", "Q8_0")
    ((title, [(_, cost)]),) = costs_of(Benchmark(model=str(path), lengths=(100,)))
    assert title.endswith("weights in Q8_0")
    assert cost.weights_nbytes == path.stat().st_size


def test_a_plan_says_that_a_text_is_longer_than_the_positions():
    assert beyond_positions(Benchmark(shape="8b", lengths=(131_072,))) is None
    assert beyond_positions(Benchmark(shape="8b", lengths=(1000, 131_073))) == (
        "8b was trained on 131072 positions, and 131073 tokens do not fit: a budget saves memory, "
        "not positions."
    )
