"""A fixed split of a data set without one of its own into training and validation examples."""

import numpy as np
from numpy.typing import NDArray

from clr.errors import InvalidArgument

Index = NDArray[np.int64]


def split(count: int, val_share: float) -> tuple[Index, Index]:
    """Numbers of the training and of the validation examples, shuffled, the same in every process and at every run.

    Args:
        count: of all examples, >= 2.
        val_share: of the examples, in (0, 1); each part gets at least one.

    Raises:
        InvalidArgument: there are fewer than two examples.

    >>> [len(part) for part in split(10, 0.2)]
    [8, 2]
    """
    if count < 2:
        raise InvalidArgument("args.data", "must hold at least two examples, one to train on and one to score", count)
    order = np.random.default_rng(0).permutation(count)
    val = min(count - 1, max(1, round(count * val_share)))
    return order[val:], order[:val]
