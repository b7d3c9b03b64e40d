"""Learning-rate bounds for cyclical learning rates: the method.

The names below are the library's whole surface, with ``clr.client`` and ``clr.integrations``. Each is imported on its
first use: ``import clr`` alone loads neither torch nor NumPy nor pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clr.client.asynchronous import AsyncClient as AsyncClient
    from clr.client.sync import Client as Client
    from clr.commands.current_run import current_run as current_run
    from clr.range_tests.bounds import Bounds as Bounds
    from clr.range_tests.recorded import read_bounds as read_bounds
    from clr.schedules.policies import POLICIES as POLICIES
    from clr.schedules.torch_scheduler import scheduler as scheduler
    from clr.tasks import load_task as load_task
    from clr.training.task import Task as Task
    from clr.tuning.in_process import range_test as range_test
    from clr.tuning.in_process import recommend as recommend
    from clr.tuning.in_process import search as search
    from clr.tuning.recommendation import Recommendation as Recommendation

_HOMES = {
    "POLICIES": "clr.schedules.policies",
    "AsyncClient": "clr.client.asynchronous",
    "Bounds": "clr.range_tests.bounds",
    "Client": "clr.client.sync",
    "Recommendation": "clr.tuning.recommendation",
    "Task": "clr.training.task",
    "current_run": "clr.commands.current_run",
    "load_task": "clr.tasks",
    "range_test": "clr.tuning.in_process",
    "read_bounds": "clr.range_tests.recorded",
    "recommend": "clr.tuning.in_process",
    "scheduler": "clr.schedules.torch_scheduler",
    "search": "clr.tuning.in_process",
}

__all__ = list(_HOMES)


if not TYPE_CHECKING:  # of a name that is not here, a type checker is to say so

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'clr' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
