"""A study as plain documents and back, through Optuna's own storage: what an export holds of it."""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.store.studies import storage


def study(url: str, job_id: str) -> dict[str, Any] | None:
    """The job's study without its trials; None when it has none."""
    stored = storage(url)
    try:
        number = stored.get_study_id_from_name(job_id)
    except KeyError:
        return None
    return {
        "directions": [direction.name for direction in stored.get_study_directions(number)],
        "user_attrs": stored.get_study_user_attrs(number),
        "system_attrs": stored.get_study_system_attrs(number),
    }


def trials(url: str, job_id: str) -> Iterator[dict[str, Any]]:
    """The trials of the job's study, by number."""
    stored = storage(url)
    for trial in stored.get_all_trials(stored.get_study_id_from_name(job_id), deepcopy=False):
        yield {
            "state": trial.state.name,
            "values": trial.values,
            "params": trial.params,
            "distributions": {name: distribution_to_json(kind) for name, kind in trial.distributions.items()},
            "user_attrs": trial.user_attrs,
            "system_attrs": trial.system_attrs,
            "intermediate_values": [[step, _written(value)] for step, value in trial.intermediate_values.items()],
            "started_at": trial.datetime_start and trial.datetime_start.isoformat(),
            "finished_at": trial.datetime_complete and trial.datetime_complete.isoformat(),
        }


def restore(url: str, job_id: str, document: dict[str, Any]) -> int:
    """Store a study without its trials; its number."""
    stored = storage(url)
    directions = [StudyDirection[name] for name in document["directions"]]
    number = stored.create_new_study(directions, study_name=job_id)
    for key, value in document["user_attrs"].items():
        stored.set_study_user_attr(number, key, value)
    for key, value in document["system_attrs"].items():
        stored.set_study_system_attr(number, key, value)
    return number


def restore_trial(url: str, study_number: int, document: dict[str, Any]) -> None:
    """Store the next trial of a study."""
    values = document["values"]
    trial = FrozenTrial(
        number=-1,  # this and trial_id are the storage's to give
        trial_id=-1,
        state=TrialState[document["state"]],
        value=None,
        values=values,
        datetime_start=_instant(document["started_at"]),
        datetime_complete=_instant(document["finished_at"]),
        params=document["params"],
        distributions={name: json_to_distribution(kind) for name, kind in document["distributions"].items()},
        user_attrs=document["user_attrs"],
        system_attrs=document["system_attrs"],
        intermediate_values={int(step): float(value) for step, value in document["intermediate_values"]},
    )
    storage(url).create_new_trial(study_number, template_trial=trial)


def _written(value: float) -> float | str:
    """JSON has no word for what is not finite; `float` reads these."""
    return value if math.isfinite(value) else str(value)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
