"""The global random states of python, numpy and torch, kept apart between a training run and its caller."""

import random
from typing import Any

import numpy as np
import torch

States = tuple[Any, ...]
"""Numbers, lists and tensors alone: a file of them loads without running code."""


def random_states() -> States:
    """The global states as they are now; those of GPUs only where CUDA is in use."""
    numpy: Any = np.random.get_state()
    kind, keys, *rest = numpy
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), (kind, keys.tolist(), *rest), torch.get_rng_state(), cuda


def set_random_states(states: States) -> None:
    """Put ``random_states()`` back."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])


class OwnRandomStates:
    """The states of one run, swapped with the caller's: a block trains with them, and leaves them at every yield.

    Args:
        seed: of the run.
        device: that it trains on.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._outer: States | None = None
        if device.type == "cuda":
            # a state that is not there yet could not be put back
            torch.cuda.init()
        outer = random_states()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed would also seed a GPU that the caller alone uses
        (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)
        self._inner = random_states()
        set_random_states(outer)

    def enter(self) -> None:
        """Make the run's states the global ones."""
        self._outer = random_states()
        set_random_states(self._inner)

    def leave(self) -> None:
        """Give the caller's states back; without ``enter`` before, nothing."""
        if self._outer is not None:
            self._inner = random_states()
            set_random_states(self._outer)
            self._outer = None

    def __enter__(self) -> "OwnRandomStates":
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
