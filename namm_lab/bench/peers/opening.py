"""Starts the peers of a plan; one that is not there is a line and no more."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from namm_lab.bench.model import load
from namm_lab.bench.peers.contender import TEXT, Opening, PeerContender
from namm_lab.bench.plan import Benchmark
from namm_llm import NammError, UsageError
from namm_llm.models.gguf import load_gguf
from namm_llm.models.packed_model import activation_dtype

WORKER = Path(__file__).with_name("worker.py")
_HINT = "make bench-peers installs it, --peer-python {name}=PYTHON says where it is"


def python_of(name: str) -> Path:
    """Where `make bench-peers` puts a peer's Python; transformers is in ours."""
    if name == "transformers":
        return Path(sys.executable)
    return Path(f".venv-{name}", "bin", "python")


@contextmanager
def opened_peers(
    plan: Benchmark, pythons: Mapping[str, str], note: Callable[[str], None]
) -> Iterator[Sequence[PeerContender]]:
    """The peers of the plan that have a process of their own, with the model loaded.

    pythons: of the peers that are not where `python_of` says. note: told, in one line, which peer
    is left out and why. Raises UsageError for a Python of a peer that is not asked for.
    """
    names = plan.outside_peers()
    for name in pythons:
        if name not in names:
            raise UsageError(
                f"--peer-python names {name!r}, which is none of the peers that are measured: "
                f"{', '.join(names) or 'none'}."
            )
    with ExitStack() as stack:
        peers: list[PeerContender] = []
        texts = _texts(plan) if names else {}
        for name in names:
            python = Path(pythons.get(name, python_of(name)))
            try:
                peers += _open(plan, name, python, texts, stack)
            except NammError as error:
                reason = str(error).rstrip(".")
                note(f"{name} is left out: {reason} ({_HINT.format(name=name)}).")
        yield peers


def _open(
    plan: Benchmark, name: str, python: Path, texts: Mapping[TEXT, Sequence[int]], stack: ExitStack
) -> list[PeerContender]:
    """The peer, and with each of its own evictions."""
    if not python.exists():
        raise NammError(f"there is no {python}")
    assert plan.model is not None
    model = str(Path(plan.model).expanduser().resolve())
    if name == "transformers":
        model = stack.enter_context(tempfile.TemporaryDirectory())
        load_gguf(plan.model, dtype=plan.float_dtype or activation_dtype()).model.save_pretrained(
            model
        )
        gc.collect()
    budgets = [int(budget) for budget in plan.budgets if budget.isdecimal()]
    found = []
    for kept in [None, *budgets] if name == "openvino" else [None]:
        command = (str(python), str(WORKER), name)
        opening = Opening(name, command, model, torch.get_num_threads(), kept)
        found.append(PeerContender(opening, texts, plan.decoded))
        stack.callback(found[-1].close)
    return found


def _texts(plan: Benchmark) -> dict[TEXT, list[int]]:
    """The ids of everything that the plan reads."""
    model = load(plan, None)
    return {(cell.text, cell.length): model.ids(cell)[0].tolist() for cell in plan.cells()}
