"""One claimed job, from its range test to its confirmation, taken up wherever the store says it stood."""

import logging
from threading import Event
from typing import Any

from clr.commands.program import RUN_SECONDS
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.trials.study import StudyMirror
from clr.tuning.cost import trainings_of_stages
from service import logs
from service.settings import Settings
from service.store import code, jobs, sessions, studies
from service.store.database import Database
from service.store.errors import LeaseLost
from service.store.jobs import Lease
from service.store.models import Job
from worker import environment
from worker.checkpoints import Checkpoints
from worker.engine import Engine
from worker.errors import OUTAGE, Cancelled, HandedBack, RunFailed
from worker.runs import Runs

log = logging.getLogger(__name__)


class JobDriver:
    """Drives one job on a thread of its own until it is finished, handed back or lost.

    Args:
        database, engine: where to write, where to run.
        job, lease: what was claimed.
        settings: of the worker.
        stopping: set when the worker shuts down.
    """

    def __init__(
        self, database: Database, engine: Engine, job: Job, lease: Lease, *, settings: Settings, stopping: Event
    ) -> None:
        self.database, self.engine, self.lease, self.settings = database, engine, lease, settings
        self.spec = JobSpec.model_validate(job.spec)
        assert job.started_at is not None
        limits = self.spec.limits
        self.runs = Runs(
            database,
            engine,
            lease,
            lease_s=settings.lease_s,
            stopping=stopping,
            trainee=self._trainee(settings.reach(job.submitted_by)),
            resources=self.spec.resources.model_dump(),
            started_at=job.started_at.timestamp(),
            max_seconds=limits.max_seconds,
            checkpoints=Checkpoints(settings.checkpoints, job.id, settings.checkpoint_seconds),
        )

    def _trainee(self, reach: Any) -> dict[str, Any]:
        """What its runs train: a task, or a program."""
        if self.spec.mode == "command":
            return {
                "command": self.spec.command,
                "direction": self.spec.direction,
                "run_seconds": self.spec.limits.run_seconds or RUN_SECONDS,
                "environment": environment.for_programs(self.settings.task_env),
            }
        task = self.spec.model_dump(include={"task", "args", "optimizer", "batch_size"}, mode="json")
        return task | {"reach": reach}

    def drive(self) -> None:
        """Work until there is nothing left to do, and leave the job in the state it belongs in."""
        logs.job_id.set(self.lease.job_id)
        try:
            self._work()
            self._end(jobs.succeed)
        except (LeaseLost, *OUTAGE) as error:
            self.runs.drop()
            log.warning("left to its next owner: job=%s: %s", self.lease.job_id, error)
        except Cancelled:
            self._end(jobs.cancelled)
        except HandedBack:
            self._end(jobs.release)
        except RunFailed as error:
            self._end(jobs.fail, str(error))
        except Exception as error:
            log.exception("job failed: job=%s", self.lease.job_id)
            self._end(jobs.fail, f"{type(error).__name__}: {error}")

    def _end(self, transition: Any, *details: str) -> None:
        self.runs.drop()
        try:
            with self.database.begin() as session:
                transition(session, self.lease, *details)
            if transition is not jobs.release:
                self.runs.checkpoints.remove()
        except (LeaseLost, *OUTAGE) as error:
            log.warning("left to its next owner at the end: job=%s: %s", self.lease.job_id, error)

    def _work(self) -> None:
        """Describe the task, then carry out its session from wherever the store says that it stood."""
        job = self._inspect_task()
        with self.database.read() as session:
            known = sessions.rebuild(session, job, in_hands=False)
        mirror = StudyMirror(studies.storage(self.database.url), self.lease.job_id, known.attributes)
        self.runs.carry_out(known, mirror)
        if known.failure is not None:
            raise RunFailed(known.failure)

    def _inspect_task(self) -> Job:
        """Learn from the task itself how long an epoch is and what a run is judged by."""
        wanted = self.runs.resources
        wanted["gpus"] = self.engine.gpus(wanted)
        if self.engine.slots(wanted) == 0:
            raise RunFailed(
                f"resources: no node has the {wanted} that a run needs; the cluster has {self.engine.total()}"
            )
        self._ship_code()
        about = self._about()
        about["trained_with"]["gpus"] = wanted["gpus"]
        trainings = sum(
            trainings_of_stages(self.spec, TrainingLength(self.spec.epochs, about["iterations_per_epoch"])).values()
        )
        predicted = max(1, round(trainings * self.spec.epochs * about["iterations_per_epoch"]))
        with self.database.begin() as session:
            jobs.set_training(session, self.lease, **about, predicted_steps=predicted)
            return jobs.get(session, self.lease.job_id)

    def _about(self) -> dict[str, Any]:
        """How long an epoch is, and what a run is judged by: a task knows it, of a program it was told."""
        if self.spec.mode == "command":
            told = {"iterations_per_epoch": self.spec.iterations_per_epoch, "direction": self.spec.direction}
            return told | {"metric": "metric", "trained_with": {"optimizer": None, "batch_size": None}}
        wanted = self.runs.resources
        described: dict[str, Any] = self.engine.inspect_task(
            self.runs.trainee, self.runs.bundle, wanted, check=self.runs.check
        )
        return described

    def _ship_code(self) -> None:
        if self.spec.mode == "command" and not self.settings.allow_code:
            raise RunFailed("command: this worker runs no commands; its admin may set CLR_ALLOW_CODE=true")
        if self.spec.code is None:
            return
        if not self.settings.allow_code:
            raise RunFailed("code: this worker runs no uploaded code; its admin may set CLR_ALLOW_CODE=true")
        with self.database.read() as session:
            data = code.data(session, self.spec.code)
        self.runs.bundle = self.engine.ship(self.spec.code, data, self.settings.code_requirements)
