"""Why a job's work stops before its end. Each is raised where work is waited for, and handled in ``worker.job``."""

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

OUTAGE = (OperationalError, InterfaceError, StorageInternalError)
"""The database did not answer: nobody's fault but its own. Leases run out, and the work is taken up again."""


class Stop(Exception):
    """Root of the reasons."""


class Cancelled(Stop):
    """Somebody asked for the job to be cancelled."""


class HandedBack(Stop):
    """This worker is shutting down, or has lost its Ray; another takes the job up, or the same once it has one."""


class LimitReached(Stop):
    """One of the job's own limits struck; the message says which."""


class RunFailed(Stop):
    """A run raised an error of its own, or ended its process every time; the message says how."""


class LostRun(Exception):
    """A run is gone without an error of its own; it may be tried again."""


class LostProcess(LostRun):
    """The run's own process ended, which may well be the run's fault: out of memory, a segmentation fault."""


class LostMachine(LostRun):
    """Ray, its node or what is between failed: never the run's fault."""
