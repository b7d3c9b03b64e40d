"""How far one rate moves a network, where that depends on how many steps the optimizer has taken."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST = 1000
"""Steps of a training that are looked at, evenly spaced."""

LEAST = 1e-3
"""Added to a mean, which is 0 where none of the steps adapts."""


def pace(optimizer: Mapping[str, Any] | None, steps: int) -> float:
    """Logarithm of the mean size of that many steps at one rate, beside an optimizer that keeps it.

    Adagrad divides by the root of the sum of all squared gradients, so that its steps get smaller as the root of their
    number; what was best for a short training has to be higher for a long one by as much. RMSprop's first steps are
    large, since its mean of the squared gradients begins at 0, and RAdam's are small until that mean is known.

    Args:
        optimizer: ``name`` and ``args``, see ``clr.training.optimizers.described``; None: not known.
        steps: from the first on.

    Source: Duchi et al. 2011; Tieleman and Hinton 2012; Liu et al. 2020, "On the Variance of the Adaptive Learning Rate
    and Beyond".

    >>> round(pace({"name": "RAdam"}, 100), 1), round(pace({"name": "RAdam"}, 10_000), 1), pace({"name": "SGD"}, 100)
    (-2.0, -0.1, 0.0)
    """
    known = optimizer or {}
    name, args = known.get("name"), known.get("args", {})
    if name == "Adagrad":
        return -math.log(steps) / 2
    if name not in ("RMSprop", "RAdam"):
        return 0.0
    taken = np.linspace(1, steps, min(steps, MOST))
    if name == "RMSprop":
        return math.log(float(np.mean(1 / np.sqrt(1 - min(args.get("alpha", 0.99), 1 - 1e-9) ** taken))))
    _, decay = args.get("betas", (0.9, 0.999))
    return math.log(float(_rectification(taken, decay).mean()) + LEAST)


def _rectification(step: Any, decay: float) -> Any:
    """Share of Adam's step that RAdam takes at each step, from 1 on; 0 where it does not yet adapt."""
    most = 2 / (1 - decay) - 1
    length = most - 2 * step * decay**step / (1 - decay**step)
    square = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    return np.where(length > 5, np.sqrt(np.maximum(square, 0)), 0.0)
