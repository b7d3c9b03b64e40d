"""Work that is the same each time, recorded once as a CUDA graph and replayed: no kernel waits for Python any more."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class Replay(Generic[Made]):
    """Calls a function a few times, then records and replays it; elsewhere than on a GPU it always calls it.

    Args:
        device: where the function works.
        calls: how often it is called before it is recorded: libraries choose their kernels, an optimizer makes its
            state.
    """

    def __init__(self, device: torch.device, calls: int) -> None:
        self.device, self.calls = device, calls
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, function: Callable[[], Made]) -> Made:
        """What the function returns; after a replay, in the same tensors as after the last.

        Args:
            function: the same one each time. It does all its work on the device, with tensors that stay where they are.
        """
        if self.calls > 0 or self.device.type != "cuda":
            self.calls -= 1
            return function()
        if self._graph is None:
            self._record(function)
        assert self._graph is not None
        self._graph.replay()
        return self._made

    def _record(self, function: Callable[[], Made]) -> None:
        """Without what ``torch.cuda.graph`` does besides: a synchronisation, and emptying the cache of memory."""
        graph, here, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device), _stream(self.device, 0)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._made = function()
            finally:
                graph.capture_end()
        here.wait_stream(aside)
        self._graph = graph


def side_by_side(functions: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
    """What the functions return; on a GPU each works on a stream of its own, which a recording makes a branch."""
    if device.type != "cuda":
        return [function() for function in functions]
    here = torch.cuda.current_stream(device)
    streams = [_stream(device, number) for number in range(1, len(functions) + 1)]
    made = []
    for function, stream in zip(functions, streams, strict=True):
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            made.append(function())
    for stream in streams:
        here.wait_stream(stream)
    return made


@cache
def _stream(device: torch.device, _number: int) -> torch.cuda.Stream:
    """The same one each time: libraries keep a workspace for each stream."""
    return torch.cuda.Stream(device)
