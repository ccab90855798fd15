"""Compiles every kernel for cards that are not here: `python -m tests.attention.triton.compiling`,
with TRITON_INTERPRET unset.

The kernels' own entries are called with tensors on the CPU, and instead of a launch Triton compiles
for the card, with the types and the specialised numbers of that very call. Prints one line of JSON
for each: kernel, card, bytes of shared memory, spilled registers.
"""

from __future__ import annotations

import itertools
import json
import sys
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from namm_llm.attention.observation import Observation
from namm_llm.attention.triton import compact, grouped, observe, ragged, replay
from namm_llm.namm import Spectrogram
from namm_llm.tokens import HeadTokens, RaggedTokens

CARDS = (80, 90)
# query heads of a group, head size: each value of each dimension with each other somewhere, and
# larger groups than are tested elsewhere
CASES = (
    (1, 64, torch.float32),
    (8, 128, torch.float32),
    (8, 80, torch.float16),
    (4, 128, torch.bfloat16),
    (48, 128, torch.bfloat16),
)
GROUPS, TOKENS, QUERIES = 2, 100, 48


def main() -> None:
    launch = JITFunction.run

    def compile_only(self, *args, warmup, **kwargs):
        kernel = launch(self, *args, warmup=True, **kwargs)
        print(
            json.dumps(
                {
                    "kernel": self.__name__,
                    "card": card,
                    "case": case,
                    "shared": kernel.metadata.shared,
                }
            )
        )

    JITFunction.run = compile_only
    for card, (rows, size, dtype) in itertools.product(CARDS, CASES):
        target = GPUTarget("cuda", card, 32)
        active = SimpleNamespace(
            get_current_device=lambda target=target: target.arch,
            get_current_stream=lambda _: 0,
            get_current_target=lambda target=target: target,
        )
        triton.runtime.driver.set_active(active)
        case = f"{dtype} {rows} {size}".removeprefix("torch.")
        run_all(rows, size, dtype)


def run_all(rows: int, size: int, dtype: torch.dtype) -> None:
    """Each kernel, as its callers launch it."""
    keys, values = torch.randn(TOKENS, size).to(dtype), torch.randn(TOKENS, size).to(dtype)
    positions = torch.arange(TOKENS, dtype=torch.int32)
    for bits in (None, 8):
        for new in (1, 9):  # decoding, a short chunk
            attend(keys, values, positions, rows, new, bits)
    queries, lse = torch.randn(rows, QUERIES, size).to(dtype), torch.zeros(rows, QUERIES)
    start, stop = 1000 - QUERIES, 1000
    observation = Observation(queries, lse, keys, positions, 0.1, query_stop=stop, new_start=start)
    observe.total(observation, torch.zeros(TOKENS, 1), start=start, stop=stop)
    for settings in (Spectrogram(), Spectrogram(num_bins=1)):
        arguments = settings.kernel_arguments(keys.device)
        state = torch.zeros(TOKENS, settings.bins)
        observe.spectrogram(observation, state, start=stop - 16, stop=stop, **arguments)
    replay.max_attention(queries.float(), keys, scale=1.0)
    for width in (0, 17):
        segment = HeadTokens(
            keys, values, positions, torch.zeros(TOKENS, width, dtype=torch.float16)
        )
        for chosen in (segment, segment.quantised()):
            compact.gather([chosen, chosen], [None, torch.arange(0, TOKENS, 2)])


def attend(keys, values, positions, rows: int, new: int, bits: int | None) -> None:
    """Retained tokens, in 8 bits or as they are, and a window."""
    segment = HeadTokens(keys, values, positions, torch.zeros(TOKENS, 0))
    retained = RaggedTokens.gather(
        [segment.quantised() if bits else segment] * GROUPS, [None, None]
    )
    query = torch.randn(GROUPS * rows, new, keys.shape[-1]).to(keys.dtype)
    recent = grouped.window_tokens(
        *(t[None].expand(GROUPS, -1, -1).contiguous() for t in (keys, values))
    )
    ragged.attend(query, [(grouped.retained_tokens(retained), False), (recent, True)], scale=0.1)


if __name__ == "__main__":
    sys.exit(main())
