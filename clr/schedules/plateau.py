"""A rate that falls when the metric no longer improves."""

from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clr.run import Direction


class Plateau:
    """torch's ``ReduceLROnPlateau`` as a factor on any policy: a tenth after ``patience`` metrics in a row, no better.

    >>> plateau = Plateau("maximize", patience=2)
    >>> for metric in (0.5, 0.6, 0.6, 0.6):
    ...     plateau.after(metric)
    >>> plateau.factor
    0.1
    """

    def __init__(self, direction: Direction, patience: int) -> None:
        self._rate = torch.optim.SGD([torch.zeros(())], lr=1.0)
        self._scheduler = ReduceLROnPlateau(
            self._rate, "max" if direction == "maximize" else "min", factor=0.1, patience=patience - 1
        )

    @property
    def factor(self) -> float:
        """Product of all reductions so far."""
        return float(self._rate.param_groups[0]["lr"])

    def after(self, metric: float) -> None:
        """Take note of the next metric."""
        self._scheduler.step(metric)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for ``load_state_dict``."""
        return {"factor": self.factor, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the plateau that ``state`` was taken of."""
        self._rate.param_groups[0]["lr"] = state["factor"]
        self._scheduler.load_state_dict(state["scheduler"])
