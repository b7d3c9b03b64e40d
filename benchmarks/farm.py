"""Runs independent calls in parallel processes, and never one twice: what the results file holds is not run again."""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import RLock
from typing import Any

import torch

from benchmarks.cases import Place

Call = Callable[..., Any]
"""``call(place, *arguments)`` -> JSON values; a function of a module, its arguments strings and numbers."""


class Farm:
    """Processes of one torch thread each, and the results file.

    Args:
        jobs: processes; 1 runs everything in this one, on a thread.
        place: what every call is given first. Not part of a result's name: the file may be made on several machines.
        out: results file, rewritten after every result; None keeps nothing.
    """

    def __init__(self, jobs: int = 1, place: Place = Place(), out: Path | None = None) -> None:  # noqa: B008
        self.place, self.out = place, out
        self.results: dict[str, Any] = json.loads(out.read_text()) if out is not None and out.exists() else {}
        self._started: dict[str, Future[Any]] = {}
        self._lock = RLock()  # a call that ends at once is kept by whoever started it
        self._executor: Executor = (
            ThreadPoolExecutor(1) if jobs == 1 else ProcessPoolExecutor(jobs, get_context("spawn"), _settle)
        )

    @classmethod
    def of(cls, chosen: argparse.Namespace) -> "Farm":
        """As chosen by the options of a ``Command``."""
        _settle()
        return cls(chosen.jobs, Place(chosen.device, chosen.precision), chosen.out)

    def start(self, call: Call, *arguments: Any) -> "Future[Any]":
        """Its result, once it is there."""
        name = "|".join([call.__name__, *map(str, arguments)])
        with self._lock:
            if name not in self._started:
                self._started[name] = self._kept(name) or self._submitted(name, call, arguments)
            return self._started[name]

    def _kept(self, name: str) -> "Future[Any] | None":
        if name not in self.results:
            return None
        future: Future[Any] = Future()
        future.set_result(self.results[name]["result"])
        return future

    def _submitted(self, name: str, call: Call, arguments: tuple[Any, ...]) -> "Future[Any]":
        running = self._executor.submit(_timed, call, self.place, *arguments)
        kept: Future[Any] = Future()

        def keep(done: "Future[Any]") -> None:
            try:
                self._keep(name, done.result())
                kept.set_result(done.result()["result"])
            except BaseException as error:  # also that the call was cancelled
                kept.set_exception(error)

        running.add_done_callback(keep)
        return kept

    def note(self, name: str, summary: Any) -> None:
        """Write a summary of results into the file, beside them."""
        self._keep(name, {"result": summary})

    def stop(self) -> None:
        """Run nothing more; what was started and not yet run ends in ``CancelledError``."""
        self._executor.shutdown(cancel_futures=True)

    def _keep(self, name: str, result: dict[str, Any]) -> None:
        with self._lock:
            self.results[name] = result
            if self.out is not None:
                fresh = self.out.with_name(f"{self.out.name}.new")
                fresh.write_text(json.dumps(self.results, indent=0, sort_keys=True))
                fresh.replace(self.out)

    def __enter__(self) -> "Farm":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _settle() -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape


def _timed(call: Call, place: Place, *arguments: Any) -> dict[str, Any]:
    began = time.perf_counter()
    result = call(place, *arguments)
    seconds = round(time.perf_counter() - began, 3)
    return {"result": result, "seconds": seconds, "place": "/".join(place), "torch": torch.__version__}
