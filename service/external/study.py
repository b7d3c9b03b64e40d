"""The study of an external job: Optuna's own tables, brought in line with ours, which decide."""

from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from clr.trials.study import tell
from service.store import jobs, runs, studies
from service.store.database import Database
from service.store.errors import NotFound
from service.store.models import RunRow


def settle(database: Database, job_id: str) -> None:
    """Tell the study what the trials ended at; in that of a finished job none stays running, and none of a deleted one.

    A process may die between its write to our tables and its write to Optuna's: whoever comes next settles it too. Call
    it with no transaction open, since a study writes through connections of its own.
    """
    study = studies.find(database.url, job_id)
    if study is None:
        return
    untold = [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
    with database.read() as session:
        try:
            finished = jobs.is_finished(session, job_id)
        except NotFound:
            studies.delete(database.url, job_id)
            return
        rows = {row.number: row for row in runs.finished(session, job_id, "search")} if untold else {}
    for number in untold:
        if number in rows or finished:
            _tell(study, number, rows.get(number))


def _tell(study: optuna.Study, number: int, row: RunRow | None) -> None:
    with suppress(UpdateFinishedTrialError):  # another told it at this moment
        if row is None or row.state == "failed":
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        else:
            tell(study, number, row.value if row.state == "complete" else None)
