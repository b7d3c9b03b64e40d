"""A fixed choice of examples, the same in every process and at every run."""

from typing import Any

import numpy as np

from clr.errors import InvalidArgument


def subset(field: str, images: Any, labels: Any, size: int) -> tuple[Any, Any]:
    """``size`` examples of two equally long arrays, in a fixed shuffled order; a smaller choice begins a larger one.

    Raises:
        InvalidArgument: there are fewer than ``size`` examples.
    """
    if size > len(images):
        raise InvalidArgument(f"args.{field}", f"must be at most {len(images)}, all there are", size)
    keep = np.random.default_rng(0).permutation(len(images))[:size]
    return images[keep], labels[keep]
