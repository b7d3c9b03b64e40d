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
    """This worker is shutting down; another takes the job up."""


class LimitReached(Stop):
    """One of the job's own limits struck; the message says which."""


class RunFailed(Stop):
    """A run raised an error of its own; the message holds its last lines."""


class LostRun(Exception):
    """A run's process or node is gone by no fault of its own: it may be tried again."""
