"""A file from which a training run that was broken off goes on, as the same run."""

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

log = logging.getLogger(__name__)

UNREADABLE = (OSError, EOFError, RuntimeError, UnpicklingError, ValueError, KeyError)


class Checkpoint:
    """Where and how often a run saves how it stands.

    A file is taken up only by the run that wrote it: everything that decides a run's numbers goes into it, and is
    compared. It is written beside its place and then moved there, so it is whole or not there. It holds tensors and
    plain values, and is read without running code.

    Args:
        path: of the file; its folder is made when needed.
        of: what the run is of, as JSON values: the task, its arguments.
        every_s: seconds between two writings, >= 0.
    """

    def __init__(self, path: Path, of: Mapping[str, Any], every_s: float = 60.0) -> None:
        self.path, self.of, self.every_s = path, dict(of), every_s
        self.restored = 0
        """Points that came from the file rather than from training."""
        self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last writing was long enough ago."""
        return time.monotonic() - self._saved >= self.every_s

    def load(self, run: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
        """What ``save`` wrote for the same ``run`` on the same kind of device; None where there is no such file."""
        try:
            if not self.path.exists():  # torch takes its time to find that out
                return None
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if content["identity"] == self._identity(run, device):
                state: dict[str, Any] = content["state"]
                return state
        except UNREADABLE as error:
            log.warning("a checkpoint is left aside, its run starts over: %s: %s", self.path, error)
        return None

    def save(self, run: Mapping[str, Any], device: torch.device, state: dict[str, Any]) -> None:
        """Write the file; a disk that is full or may not be written costs the checkpoint, never the run."""
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save({"identity": self._identity(run, device), "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except (OSError, RuntimeError) as error:
            log.warning("no checkpoint could be written: %s: %s", self.path, error)
            with suppress(OSError):
                part.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The run has ended."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _identity(self, run: Mapping[str, Any], device: torch.device) -> str:
        """Everything beside the task's own code that decides the numbers of a run."""
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        where = [str(torch.__version__), kind, torch.get_num_threads()]
        return json.dumps([self.of, dict(run), where], sort_keys=True)
