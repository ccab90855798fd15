"""`GraphRunner`: repeats a step on the same addresses, from a CUDA graph of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

_WARM = 1  # steps before a recording: they compile kernels and allocate what stays
_ONE = threading.Lock()  # torch records one graph of a process at a time


class GraphRunner:
    """Runs a step, at first as it stands, then from a CUDA graph that was recorded of it.

    device: where the step runs. record: whether to make a graph of it at all. refused: told why a
    recording failed; the step then goes on as it stands. It holds nothing of the step, so that all
    memory is free as soon as nobody holds the graph.
    """

    def __init__(
        self, device: torch.device, *, record: bool, refused: Callable[[Exception], None]
    ) -> None:
        self._device = device
        self._records = record
        self._refused = refused
        self._graph: torch.cuda.CUDAGraph | None = None
        self._runs = 0

    def run(self, step: Callable[[], None]) -> None:
        """One step, the same one each time until `forget`; those before the recording are real ones
        too.
        """
        if self._graph is None and self._records and self._runs >= _WARM:
            self._record(step)
        if self._graph is None:
            step()
        else:
            self._graph.replay()
        self._runs += 1

    def forget(self) -> None:
        """Shapes or addresses are others from now on."""
        self._graph, self._runs = (
            None,
            0,
        )  # the old graph's memory is free before the next is recorded

    def _record(self, step: Callable[[], None]) -> None:
        """Nothing is computed meanwhile. What other threads do on the device does not disturb it
        (`thread_local`).
        """
        try:
            graph = torch.cuda.CUDAGraph()
            # the stream that torch records on by default is one of the first device that recorded;
            # a recording that fails leaves it current
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
            with _ONE, torch.cuda.device(self._device), torch.cuda.stream(stream), recording:
                step()
        except (
            RuntimeError
        ) as error:  # an operation that waits for the host, or one that cannot be recorded
            self._records = False
            self._refused(error)
        else:
            self._graph = graph
