"""Where the runs of one job save how they stand, and when that is thrown away."""

import shutil
import time
from pathlib import Path

from worker.remote import Place

KEPT_S = 7 * 24 * 3600.0
"""A job's checkpoints that nobody has written for so long are those of a job that never ended here."""


class Checkpoints:
    """The checkpoints of one job: a file for each run under way, in a folder of the job's own.

    Args:
        folder: of all jobs; nodes that share it can go on with each other's runs.
        job_id: whose they are.
        every_s: seconds between two writings; 0: there are none.
    """

    def __init__(self, folder: Path, job_id: str, every_s: float) -> None:
        self.folder, self.every_s = folder / job_id, every_s

    def of(self, stage: str, number: int) -> Place | None:
        """Of one run, as plain values for its Ray task."""
        if self.every_s == 0:
            return None
        return {"path": str((self.folder / f"{stage}-{number}.pt").absolute()), "every_s": self.every_s}

    def remove(self) -> None:
        """Throw them all away: the job has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Throw away what jobs left that ended elsewhere, or while no worker had them."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.is_dir() and time.time() - left.stat().st_mtime > KEPT_S:
            shutil.rmtree(left, ignore_errors=True)
