"""Learning-rate bounds for cyclical learning rates: the method.

Owns the policies, the training loop, the LR range test, the reading of its curves, the search and the
recommendation. Must not import ``service`` or ``worker``, nor any database, web or cluster library; Optuna is
imported by ``clr.search`` alone. ``import clr`` is cheap: torch is imported by the modules that train, on first use.
"""

from importlib import import_module
from typing import Any

# Bound here, after their modules of the same name were loaded, so that `clr.range_test` is the function for good.
from clr.range_test import range_test
from clr.search import search

_LAZY = {
    "POLICIES": "policies",
    "Bounds": "bounds",
    "Client": "client",
    "Recommendation": "recommendation",
    "Task": "task",
    "load_task": "tasks",
    "read_bounds": "bounds",
    "recommend": "recommendation",
    "scheduler": "lr_scheduler",
}

__all__ = ["range_test", "search", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'clr' has no attribute {name!r}")
    return getattr(import_module(f"clr.{_LAZY[name]}"), name)
