"""Learning-rate bounds for cyclical learning rates: the method.

Owns the policies, the training loop, the LR range test, the reading of its curves, the search and the
recommendation. Must not import ``service`` or ``worker``, nor any database, web or cluster library; Optuna is
imported by ``clr.search`` alone. ``import clr`` is cheap: torch is imported by the modules that train, on first use.
"""

from importlib import import_module
from typing import Any

# Loaded before the functions of the same names are bound: `clr.search` is the function, whatever is imported later.
import clr.range_test
import clr.search  # noqa: F401
from clr.local import range_test, recommend, search

_LAZY = {
    "POLICIES": "policies",
    "AsyncClient": "async_client",
    "Bounds": "bounds",
    "Client": "client",
    "Recommendation": "recommendation",
    "Task": "task",
    "load_task": "tasks",
    "read_bounds": "bounds",
    "scheduler": "lr_scheduler",
}

__all__ = ["range_test", "recommend", "search", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'clr' has no attribute {name!r}")
    return getattr(import_module(f"clr.{_LAZY[name]}"), name)
