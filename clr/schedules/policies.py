"""Learning-rate policies: pure functions from the step (optimizer updates taken so far, from 0) to the rate.

All share the symbols t = step, s = stepsize, B = base_lr, M = max_lr, g = gamma. The cyclic ones also take
``stepsize_down``, d, the steps of the falling half; None makes it s. With c = t // (s + d) cycles behind and
p = t % (s + d) steps into this one, they are built on the triangle x = p / s while it rises (p <= s) and
x = (s + d - p) / d while it falls: 0 at the ends of a cycle, 1 at its peak.

The functions compute; ``schedule`` checks arguments and binds them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from clr.errors import InvalidArgument


def triangular(
    step: int,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> float:
    """Linear rise from base_lr to max_lr and back, for ever: B + (M - B) x.

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: bounds of the cycle, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the rising half, >= 1.
        gamma: not used.
        stepsize_down: steps of the falling half, >= 1; None: stepsize.

    Returns:
        The rate of that step, in [base_lr, max_lr].

    >>> [round(triangular(t, base_lr=0.001, max_lr=0.006, stepsize=2), 6) for t in range(5)]
    [0.001, 0.0035, 0.006, 0.0035, 0.001]

    Source: Smith, arXiv 1506.01186, section 3.1. torch: ``CyclicLR(mode="triangular")``.
    """
    return _between(base_lr, max_lr, _triangle(step, stepsize, stepsize_down))


def triangular2(
    step: int,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> float:
    """The triangle, its height halved after every cycle: B + (M - B) x / 2**c.

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: bounds of the first cycle, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the rising half, >= 1.
        gamma: not used.
        stepsize_down: steps of the falling half, >= 1; None: stepsize.

    Returns:
        The rate of that step, in [base_lr, max_lr].

    >>> [triangular2(t, base_lr=1.0, max_lr=5.0, stepsize=1) for t in range(6)]
    [1.0, 5.0, 1.0, 3.0, 1.0, 2.0]

    Source: Smith, arXiv 1506.01186, section 3.1. torch: ``CyclicLR(mode="triangular2")``.
    """
    cycle = step // (stepsize + (stepsize_down or stepsize))
    height = math.ldexp(1.0, -cycle)  # 2.0**cycle would overflow at cycle 1024
    return _between(base_lr, max_lr, _triangle(step, stepsize, stepsize_down) * height)


def exp_range(
    step: int,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> float:
    """The triangle between two bounds that both decay: g**t (B + (M - B) x).

    This is the paper's policy. torch and Keras let only the height decay: see ``exp_range_amplitude``.

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: bounds at step 0, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the rising half, >= 1.
        gamma: factor per step, in (0, 1]; required.
        stepsize_down: steps of the falling half, >= 1; None: stepsize.

    Returns:
        The rate of that step, in [base_lr g**t, max_lr g**t].

    >>> [exp_range(t, base_lr=1.0, max_lr=4.0, stepsize=1, gamma=0.5) for t in range(4)]
    [1.0, 2.0, 0.25, 0.5]

    Source: Smith, arXiv 1506.01186, section 3.1.
    """
    rate = triangular(step, base_lr=base_lr, max_lr=max_lr, stepsize=stepsize, stepsize_down=stepsize_down)
    return rate * _decay(gamma, step)


def exp_range_amplitude(
    step: int,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> float:
    """The triangle, its height decaying at every step while base_lr stays: B + (M - B) x g**t.

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: bounds at step 0, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the rising half, >= 1.
        gamma: factor per step, in (0, 1]; required.
        stepsize_down: steps of the falling half, >= 1; None: stepsize.

    Returns:
        The rate of that step, in [base_lr, max_lr].

    >>> [exp_range_amplitude(t, base_lr=1.0, max_lr=5.0, stepsize=1, gamma=0.5) for t in range(4)]
    [1.0, 3.0, 1.0, 1.5]

    Source: torch, ``CyclicLR(mode="exp_range")``; the paper's own rule is ``exp_range``.
    """
    return _between(base_lr, max_lr, _triangle(step, stepsize, stepsize_down) * _decay(gamma, step))


def welch(
    step: int,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> float:
    """Parabolic window between the bounds: B + (M - B) (1 - (1 - x)**2).

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: bounds of the cycle, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the rising half, >= 1.
        gamma: not used.
        stepsize_down: steps of the falling half, >= 1; None: stepsize.

    Returns:
        The rate of that step, in [base_lr, max_lr].

    >>> [welch(t, base_lr=1.0, max_lr=5.0, stepsize=2) for t in range(5)]
    [1.0, 4.0, 5.0, 4.0, 1.0]

    Source: Smith, arXiv 1506.01186, section 3.1.
    """
    x = _triangle(step, stepsize, stepsize_down)
    return _between(base_lr, max_lr, x * (2 - x))


def hann(
    step: int,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> float:
    """Sinusoidal window between the bounds: B + (M - B) sin(pi x / 2)**2.

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: bounds of the cycle, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the rising half, >= 1.
        gamma: not used.
        stepsize_down: steps of the falling half, >= 1; None: stepsize.

    Returns:
        The rate of that step, in [base_lr, max_lr].

    >>> [round(hann(t, base_lr=1.0, max_lr=5.0, stepsize=2), 6) for t in range(5)]
    [1.0, 3.0, 5.0, 3.0, 1.0]

    Source: Smith, arXiv 1506.01186, section 3.1.
    """
    return _between(base_lr, max_lr, math.sin(math.pi / 2 * _triangle(step, stepsize, stepsize_down)) ** 2)


def fixed(step: int, *, base_lr: float, max_lr: float, stepsize: int, gamma: float | None = None) -> float:
    """The same rate at every step: M.

    Args:
        step, base_lr, stepsize, gamma: not used.
        max_lr: the rate, > 0.

    Returns:
        max_lr.

    >>> fixed(7, base_lr=0.01, max_lr=0.01, stepsize=10)
    0.01

    Source: the baseline of Smith, arXiv 1506.01186, section 4.
    """
    return max_lr


def one_cycle(step: int, *, base_lr: float, max_lr: float, stepsize: int, gamma: float | None = None) -> float:
    """One warm-up and one long descent over n = 2 s steps, each half a cosine.

    With e = 0.3 n - 1 and h(u) = (1 - cos(pi u)) / 2: from B to M by h(t / e) up to t = e, then from M to
    B / 10,000 by h((t - e) / (n - 1 - e)).

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: initial and highest rate, 0 < base_lr <= max_lr.
        stepsize: half the steps of the whole training, >= 1.
        gamma: not used.

    Returns:
        The rate of that step, in [base_lr / 10,000, max_lr]; the last one's for any step past the end.

    >>> [round(one_cycle(t, base_lr=1.0, max_lr=5.0, stepsize=5), 4) for t in (0, 1, 2, 9, 99)]
    [1.0, 3.0, 5.0, 0.0001, 0.0001]

    Source: torch, ``OneCycleLR(total_steps=n, pct_start=0.3, anneal_strategy="cos", final_div_factor=1e4)``.
    """
    last = 2 * stepsize - 1
    peak = 0.3 * 2 * stepsize - 1
    if step <= peak:
        return _between(base_lr, max_lr, _half_cosine(step / peak))
    return _between(max_lr, base_lr / 1e4, _half_cosine(min(1.0, (step - peak) / (last - peak))))


def cosine(step: int, *, base_lr: float, max_lr: float, stepsize: int, gamma: float | None = None) -> float:
    """Half a cosine from max_lr down to base_lr over n = 2 s steps: B + (M - B) (1 + cos(pi t / n)) / 2.

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: final and initial rate, 0 < base_lr <= max_lr.
        stepsize: half the steps of the whole training, >= 1.
        gamma: not used.

    Returns:
        The rate of that step, in [base_lr, max_lr]; base_lr from step n on.

    >>> [round(cosine(t, base_lr=1.0, max_lr=5.0, stepsize=2), 6) for t in (0, 2, 4, 99)]
    [5.0, 3.0, 1.0, 1.0]

    Source: torch, ``CosineAnnealingLR(T_max=n, eta_min=B)``, within its n steps.
    """
    return _between(max_lr, base_lr, _half_cosine(min(1.0, step / (2 * stepsize))))


def linear_ramp(step: int, *, base_lr: float, max_lr: float, stepsize: int, gamma: float | None = None) -> float:
    """Linear rise from base_lr at step 0 to max_lr at the last, s - 1: B + (M - B) t / (s - 1).

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: first and last rate, 0 <= base_lr <= max_lr, max_lr > 0.
        stepsize: steps of the ramp, >= 1; a ramp of one step is at max_lr.
        gamma: not used.

    Returns:
        The rate of that step, in [base_lr, max_lr]; max_lr past the end.

    >>> [linear_ramp(t, base_lr=0.0, max_lr=4.0, stepsize=5) for t in range(6)]
    [0.0, 1.0, 2.0, 3.0, 4.0, 4.0]

    Source: the LR range test of Smith, arXiv 1506.01186, section 3.3.
    """
    return _between(base_lr, max_lr, _share(step, stepsize))


def exponential_ramp(step: int, *, base_lr: float, max_lr: float, stepsize: int, gamma: float | None = None) -> float:
    """Geometric rise from base_lr at step 0 to max_lr at the last, s - 1: B (M / B)**(t / (s - 1)).

    Args:
        step: optimizer steps taken so far, >= 0.
        base_lr, max_lr: first and last rate, 0 < base_lr <= max_lr.
        stepsize: steps of the ramp, >= 1; a ramp of one step is at max_lr.
        gamma: not used.

    Returns:
        The rate of that step, in [base_lr, max_lr]; max_lr past the end.

    >>> [round(exponential_ramp(t, base_lr=0.01, max_lr=1.0, stepsize=3), 6) for t in range(4)]
    [0.01, 0.1, 1.0, 1.0]

    Source: the ramp of fastai's ``lr_find`` and its relatives.
    """
    share = _share(step, stepsize)
    return float(base_lr ** (1 - share) * max_lr**share)  # exact at both ends, and no M / B to overflow


Policy = Callable[..., float]

POLICIES: dict[str, Policy] = {
    "triangular": triangular,
    "triangular2": triangular2,
    "exp_range": exp_range,
    "exp_range_amplitude": exp_range_amplitude,
    "welch": welch,
    "hann": hann,
    "fixed": fixed,
    "one_cycle": one_cycle,
    "cosine": cosine,
}
"""Every policy a network can be trained by."""

RAMPS: dict[str, Policy] = {"linear_ramp": linear_ramp, "exponential_ramp": exponential_ramp}
"""The ramps of the LR range test; ``stepsize`` is the whole ramp."""

CYCLIC = ("triangular", "triangular2", "exp_range", "exp_range_amplitude", "welch", "hann")
"""The policies that repeat a cycle, and so take ``stepsize_down``."""

DECAYING = ("exp_range", "exp_range_amplitude")
"""The policies that need ``gamma``."""


def schedule(
    name: str,
    *,
    base_lr: float,
    max_lr: float,
    stepsize: int,
    gamma: float | None = None,
    stepsize_down: int | None = None,
) -> Callable[[int], float]:
    """The policy or ramp ``name`` with its arguments checked and bound.

    Args:
        name: key of ``POLICIES`` or ``RAMPS``.
        base_lr, max_lr: 0 <= base_lr <= max_lr, max_lr > 0, finite; ``exponential_ramp`` cannot start at 0.
        stepsize: whole number of steps, >= 1.
        gamma: in (0, 1] for the policies in ``DECAYING``, None for all others.
        stepsize_down: whole number of steps, >= 1, for the policies in ``CYCLIC``; None for all others.

    Returns:
        A function from the step (>= 0) to the rate, a float.

    Raises:
        InvalidArgument: a rule above is broken.

    >>> rate = schedule("triangular", base_lr=0.001, max_lr=0.006, stepsize=2000)
    >>> rate(0), rate(2000), rate(4000)
    (0.001, 0.006, 0.001)
    """
    policy = (POLICIES | RAMPS).get(name) if isinstance(name, str) else None
    if policy is None:
        raise InvalidArgument("policy", f"must be one of {', '.join(POLICIES | RAMPS)}", name)
    base_lr, max_lr = _rate("base_lr", base_lr, zero=name != "exponential_ramp"), _rate("max_lr", max_lr)
    if base_lr > max_lr:
        raise InvalidArgument("base_lr", f"must be at most max_lr = {max_lr:g}", base_lr)
    bound: dict[str, Any] = {"base_lr": base_lr, "max_lr": max_lr, "stepsize": _steps("stepsize", stepsize)}
    if _wanted(name, "gamma", gamma, DECAYING, required=True):
        bound["gamma"] = _factor(gamma)
    if _wanted(name, "stepsize_down", stepsize_down, CYCLIC, required=False):
        bound["stepsize_down"] = _steps("stepsize_down", stepsize_down)
    return partial(policy, **bound)


def _triangle(step: int, up: int, down: int | None) -> float:
    """Height of the triangle at a step, in [0, 1]; exact at the peak of every cycle, however late."""
    down = down or up
    position = step % (up + down)
    return position / up if position <= up else (up + down - position) / down


def _between(low: float, high: float, share: float) -> float:
    """From low at share 0 to high at share 1, exactly at both ends and never past them."""
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def _half_cosine(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2


def _share(step: int, stepsize: int) -> float:
    return step / (stepsize - 1) if step < stepsize - 1 else 1.0


def _decay(gamma: float | None, step: int) -> float:
    if gamma is None:
        raise InvalidArgument("gamma", "must be in (0, 1] for this policy", None)
    return float(gamma**step)


def _rate(field: str, value: Any, zero: bool = False) -> float:
    rule = "at least 0" if zero else "above 0"
    if not (is_number(value) and (value > 0 or (zero and value == 0))):
        raise InvalidArgument(field, f"must be a finite number {rule}", value)
    return float(value)


def _factor(value: Any) -> float:
    if not (is_number(value) and 0 < value <= 1):
        raise InvalidArgument("gamma", "must be a number in (0, 1]", value)
    return float(value)


def _steps(field: str, value: Any) -> int:
    if not is_number(value) or value != int(value) or value < 1:
        raise InvalidArgument(field, "must be a whole number of steps, at least 1", value)
    return int(value)


def is_number(value: Any) -> bool:
    """Whether ``value`` is one finite number, also NumPy's or torch's."""
    if isinstance(value, bool | str | bytes):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def _wanted(name: str, field: str, value: Any, names: tuple[str, ...], *, required: bool) -> bool:
    """Whether to bind an argument that only some policies take."""
    if name not in names and value is not None:
        raise InvalidArgument(field, f"must be left out: {name} takes none", value)
    if name in names and value is None and required:
        raise InvalidArgument(field, f"must be in (0, 1] for {name}; 0.99994 is the paper's", None)
    return value is not None
