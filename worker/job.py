"""One claimed job, from its range test to its confirmation, taken up wherever the store says it stood."""

import logging
from threading import Event
from typing import Any

from ray.exceptions import RayError

from clr.commands.program import RUN_SECONDS
from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.trials.study import StudyMirror
from clr.tuning.cost import trainings_of_stages
from clr.tuning.recommendation import Recommendation
from service import logs
from service.settings import Settings
from service.store import code, jobs, recommendations, sessions, studies
from service.store.database import Database
from service.store.errors import LeaseLost
from service.store.jobs import Lease
from service.store.models import Job
from worker import environment, record
from worker.checkpoints import Checkpoints
from worker.engine import Engine, pause
from worker.errors import OUTAGE, Cancelled, HandedBack, LimitReached, LostRun, RunFailed
from worker.remote import About
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
        self,
        database: Database,
        engine: Engine,
        job: Job,
        lease: Lease,
        *,
        settings: Settings,
        stopping: Event,
    ) -> None:
        self.database, self.engine, self.lease, self.settings = database, engine, lease, settings
        self.spec = JobSpec.model_validate(job.spec)
        known = job.trained_with or {}
        self.held = {"gpus": known["gpus"]} if "gpus" in known else {}  # by a node, when the job's task was loaded
        limits = self.spec.limits
        self.runs = Runs(
            database,
            engine,
            lease,
            lease_s=settings.lease_s,
            stopping=stopping,
            trainee=self._trainee(settings.reach(job.submitted_by)),
            worked_s=job.worked_s,
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
        except (HandedBack, LostRun, RayError) as error:
            log.info("handed back: job=%s: %s", self.lease.job_id, error)
            self._end(jobs.release)
        except RunFailed as error:
            self._end(jobs.fail, str(error))
        except Exception as error:
            log.exception("job failed: job=%s", self.lease.job_id)
            if self.engine.cluster.loss() is None:
                self._end(jobs.fail, f"{type(error).__name__}: {error}")
            else:  # a Ray that is gone raises anything
                self._end(jobs.release)

    def _end(self, transition: Any, *details: str) -> None:
        self.runs.drop()
        try:
            with self.database.begin() as session:
                transition(session, self.lease, *details)
            if transition is not jobs.release:
                self.runs.checkpoints.remove()
            if transition is jobs.succeed and self.settings.tracking is not None:
                record.write(self.database, self.lease.job_id, self.settings.tracking)
        except (LeaseLost, *OUTAGE) as error:
            log.warning("left to its next owner at the end: job=%s: %s", self.lease.job_id, error)

    def _work(self) -> None:
        """Describe the task, then carry out its session from wherever the store says that it stood."""
        try:
            job = self._inspect_task()
        except LimitReached as limit:
            return self._give_up(f"{limit} was reached before the task was loaded")
        with self.database.read() as session:
            known = sessions.rebuild(session, job, in_hands=False)
        mirror = StudyMirror(studies.storage(self.database.url), self.lease.job_id, known.attributes)
        self.runs.carry_out(known, mirror)
        if known.failure is not None:
            raise RunFailed(known.failure)
        return None

    def _give_up(self, reason: str) -> None:
        """Recommend no bounds, unless something was found before."""
        with self.database.begin() as session:
            if recommendations.get(session, self.lease.job_id) is None:
                found = Recommendation.of(
                    "range_test", Bounds.inconclusive(reason), None, None, job_id=self.lease.job_id
                )
                recommendations.put(session, self.lease, found.to_dict(), task=self.spec.task, optimizer=None)

    def _inspect_task(self) -> Job:
        """Learn from the task itself how long an epoch is and what a run is judged by."""
        self._wait_for_room()
        self._ship_code()
        about = self._about()
        trainings = sum(
            trainings_of_stages(self.spec, TrainingLength(self.spec.epochs, about["iterations_per_epoch"])).values()
        )
        predicted = max(1, round(trainings * self.spec.epochs * about["iterations_per_epoch"]))
        with self.database.begin() as session:
            jobs.set_training(session, self.lease, **about, predicted_steps=predicted)
            return jobs.get(session, self.lease.job_id)

    def _wait_for_room(self) -> None:
        """Wait for a node that holds a run; only what a whole cluster does not hold, and never held, is an error."""
        cluster, asked = self.engine.cluster, self.spec.resources.model_dump() | self.held
        while (found := cluster.room(**asked)) is None:
            if cluster.nodes and cluster.is_settled and not self.held:
                asked["gpus"] = asked["gpus"] or 0.0
                raise RunFailed(
                    f"resources: no node has the {asked} that a run needs; the cluster has {cluster.total()}"
                )
            pause(self.runs.check)
        self.runs.resources = found

    def _about(self) -> About:
        """How long an epoch is, and what a run is judged by: a task knows it, of a program it was told."""
        gpus = self.runs.resources.gpus
        if self.spec.mode == "command":
            assert self.spec.iterations_per_epoch is not None
            assert self.spec.direction is not None
            return {
                "iterations_per_epoch": self.spec.iterations_per_epoch,
                "metric": "metric",
                "direction": self.spec.direction,
                "trained_with": {"optimizer": None, "batch_size": None, "gpus": gpus},
            }
        about = self.engine.inspect_task(
            self.runs.trainee, self.runs.bundle, self.runs.resources, check=self.runs.check
        )
        about["trained_with"]["gpus"] = gpus
        return about

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
