"""What is compared: our range test and the peers, all asked for a schedule that fills a case's budget."""

import math
from importlib.util import find_spec
from typing import Any

import clr
from benchmarks.cases import CASES, Case, Place
from benchmarks.peers import PEERS
from clr.spec import RangeTestSpec
from clr.training.loop import curve_of
from clr.training.task import Task

OURS = "clr"

SHARES = (0.5, 1.0, 2.0)
"""Costs of the range test, in trainings, for the curve of regret against cost."""

PEER_RATIO, PEER_CYCLES = 4.0, 2
"""How a peer's one rate becomes a schedule: it is max_lr, base_lr is a quarter (the paper's rule of thumb), two
cycles fill the budget."""

NEEDS = {"torch_lr_finder": "torch_lr_finder", "lightning": "lightning", "ignite": "ignite"}

TOOLS = [OURS, *PEERS]


def at_cost(share: float) -> str:
    """Name of our range test at a cost of ``share`` trainings."""
    return f"{OURS} {share:g}"


def missing(tools: list[str]) -> list[str]:
    """Those whose package is not installed."""
    return [tool for tool in tools if tool in NEEDS and find_spec(NEEDS[tool]) is None]


def suggest(place: Place, name: str, tool: str, seed: int) -> dict[str, Any]:
    """``max_lr``, ``ratio``, ``cycles`` and ``cost`` in trainings; or ``error`` and why."""
    case = CASES[name]
    task = case.load(place)
    try:
        if tool in PEERS:
            return _peers(case, task, tool, seed)
        share = float(tool.removeprefix(OURS) or "nan")
        return _ours(case, task, None if math.isnan(share) else share, seed)
    except ImportError:  # a broken installation is no result
        raise
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _ours(case: Case, task: Task, share: float | None, seed: int) -> dict[str, Any]:
    spec = RangeTestSpec(epochs=None if share is None else share * case.length.epochs)
    tested = clr.range_test(task, epochs=case.length.epochs, seed=seed, test=spec)
    candidate = tested.bounds.candidate(case.length)
    if candidate is None:
        return {"error": f"inconclusive: {'; '.join(tested.bounds.reasons)}"}
    return {
        "max_lr": candidate.max_lr,
        "ratio": candidate.ratio,
        "cycles": candidate.cycles,
        "cost": tested.cost_steps / case.length.steps,
        "bounds": tested.bounds.to_dict(),
    }


def _peers(case: Case, task: Task, tool: str, seed: int) -> dict[str, Any]:
    rate, steps = PEERS[tool](task, seed)
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"it suggests {rate}")
    return {"max_lr": rate, "ratio": PEER_RATIO, "cycles": PEER_CYCLES, "cost": steps / case.length.steps}


def train(place: Place, name: str, max_lr: float, ratio: float, cycles: int, seed: int) -> float:
    """Final score of a training with that schedule; the constant predictor's when it diverged or did worse."""
    case = CASES[name]
    task = case.load(place)
    value = curve_of(task, case.length.propose(max_lr, ratio, cycles).run(seed)).value
    if value is None:
        return case.floor
    return max(case.floor, value if task.score[1] == "maximize" else -value)
