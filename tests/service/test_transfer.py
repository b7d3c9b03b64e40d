import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text

from service import transfer
from service.store import events, jobs, recommendations, runs, studies, tokens
from service.store.database import Base, Database
from service.store.errors import Conflict, NotFound, StoreError
from service.store.models import Job
from tests.conftest import Server
from tests.service.conftest import Run, is_one_error_line

POINT = {"step": 2, "lr": [0.1, 0.2], "loss": [2.0, None], "metric": 1 / 3, "diverged": False}
SPACE = {
    "ratio": FloatDistribution(1.5, 20, log=True),
    "cycles": IntDistribution(1, 9),
    "policy": CategoricalDistribution(["triangular", "welch"]),
}


@pytest.fixture
def other(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database of the other kind."""
    with of_other_kind(request, database_url, tmp_path) as url:
        database = Database(url)
        yield database
        database.dispose()
        studies.dispose()


@contextmanager
def of_other_kind(request: pytest.FixtureRequest, url: str, folder: Path) -> Iterator[str]:
    if url.startswith("sqlite"):
        server: Server = request.getfixturevalue("postgresql")
        with server.copy(request.getfixturevalue("migrated_postgresql")) as other:
            yield other
    else:
        shutil.copy(request.getfixturevalue("migrated_sqlite"), folder / "other.db")
        yield f"sqlite:///{folder}/other.db"


def submit(database: Database, **given: Any) -> str:
    with database.begin() as session:
        return jobs.submit(
            session, spec={"seed": 1, "notify": {"url": "http://x"}}, name="größe 7", task="digits", **given
        )[0].id


def finished(database: Database) -> str:
    """A job with all that a job can have."""
    job_id = submit(database, submitted_by="ann", idempotency_key="k", idempotency_digest="d", priority=3)
    with database.begin() as session:
        claimed = jobs.claim(session, owner="w", lease_s=60)
        assert claimed is not None
        lease = claimed[1]
        for stage, number in (("range_test", 0), ("search", 0), ("search", 1)):
            place = {"stage": stage, "number": number}
            attempt = runs.start(session, lease, **place, params={"ratio": 3.0}, run={"seed": number})
            runs.append(session, lease, **place, attempt=attempt, points=[POINT, POINT | {"step": 4}])
            runs.finish(session, lease, **place, attempt=attempt, state="complete", value=0.1 + number, steps=4)
        jobs.set_range_test(session, lease, {"bounds": {"max_lr": 0.1}})
        document = {"job_id": job_id, "source": "search", "base_lr": 1e-3}
        recommendations.put(session, lease, document, task="digits", optimizer="SGD")
        jobs.succeed(session, lease)
    study = optuna.create_study(study_name=job_id, storage=studies.storage(database.url), direction="maximize")
    study.set_user_attr("who", "ann")
    params = {"ratio": 3.3, "cycles": 2, "policy": "welch"}
    for state, value, seen in (
        (TrialState.COMPLETE, 0.5, {1: 0.25, 2: math.nan, 3: math.inf}),
        (TrialState.PRUNED, None, {1: -math.inf}),
        (TrialState.FAIL, None, {}),
    ):
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=params,
                distributions=SPACE,
                intermediate_values=seen,
                user_attrs={"a": [1, None]},
                system_attrs={"b": 2},
            )
        )
    return job_id


def trials(database: Database, job_id: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=job_id, storage=studies.storage(database.url)).get_trials()


def comparable(trial: FrozenTrial) -> dict[str, Any]:
    fields = {name: getattr(trial, name) for name in ("number", "state", "values", "params", "distributions")}
    times = {"start": trial.datetime_start, "end": trial.datetime_complete, "seen": repr(trial.intermediate_values)}
    return fields | times | {"user": trial.user_attrs, "system": trial.system_attrs}


def export(database: Database, *ids: str) -> list[str]:
    return list(transfer.export(database, ids or transfer.movable(database)))


def parsed(lines: list[str]) -> list[Any]:
    """What the lines say: PostgreSQL keeps no order of an object's keys."""
    return [json.loads(line) for line in lines]


def take_in(database: Database, lines: list[str]) -> list[tuple[str, bool]]:
    return list(transfer.take_in(database, lines))


def test_jobs_come_back_equal_from_the_other_kind_of_database(
    database: Database, other: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ids = [finished(database), submit(database)]
    lines = export(database)
    kinds = [next(iter(json.loads(line))) for line in lines]
    assert kinds[:6] == ["clr-export", "job", "study", "trial", "trial", "trial"]
    assert {*kinds} == {*transfer.TABLES, "clr-export", "study", "trial", "end"}
    assert take_in(other, lines) == [(job_id, True) for job_id in ids]
    assert parsed(export(other)) == parsed(lines)
    assert [comparable(trial) for trial in trials(other, ids[0])] == [
        comparable(trial) for trial in trials(database, ids[0])
    ]
    with database.begin() as session:
        jobs.delete(session, ids[0])
        jobs.request_cancel(session, ids[1])
        jobs.delete(session, ids[1])
    studies.delete(database.url, ids[0])
    assert export(database) == lines[:1]
    assert take_in(database, export(other)) == [(job_id, True) for job_id in ids]
    assert parsed(export(database)) == parsed(lines)
    with database.begin() as session:  # and is a job like any other
        told = [event.kind for event in events.after(session, ids[0], 0)]
        assert told.count("points") == 3
        claimed = jobs.claim(session, owner="w", lease_s=60)
        assert claimed is not None
        assert claimed[0].id == ids[1]


def test_a_job_that_is_here_already_is_left_as_it_is(database: Database) -> None:
    ids = [finished(database), submit(database)]
    lines = export(database)
    with database.begin() as session:
        jobs.request_cancel(session, ids[1])
    assert take_in(database, lines) == [(job_id, False) for job_id in ids]
    with database.read() as session:
        assert jobs.get(session, ids[1]).state == "cancelled"
    assert len(trials(database, ids[0])) == 3


def test_an_export_that_breaks_off_stores_the_jobs_before_and_nothing_of_the_last(
    database: Database, other: Database
) -> None:
    first, second = submit(database), finished(database)
    lines = export(database)
    for kept in range(len(export(database, first)) + 1, len(lines), 4):
        with pytest.raises(StoreError, match=f"in the middle of job {second}"):
            take_in(other, lines[:kept])
        with other.read() as session:
            assert [job.id for job in jobs.browse(session)] == [first]
        assert optuna.get_all_study_names(studies.storage(other.url)) == []
    assert take_in(other, lines) == [(first, False), (second, True)]


def test_a_job_that_runs_is_not_moved(database: Database) -> None:
    job_id, waiting = submit(database, priority=1), submit(database)
    with database.begin() as session:
        jobs.claim(session, owner="w", lease_s=60)
    with pytest.raises(Conflict, match=f"job {job_id} is running"):
        export(database, job_id)
    assert list(transfer.movable(database)) == [waiting]
    assert transfer.running(database) == 1
    with pytest.raises(NotFound, match="'nobody'"):
        export(database, "nobody")


def test_a_job_that_is_claimed_while_it_is_exported_is_marked_and_not_stored(
    database: Database, other: Database
) -> None:
    submit(database)
    lines = transfer.export(database, transfer.movable(database))
    begun = [next(lines), next(lines)]
    with database.begin() as session:
        jobs.claim(session, owner="w", lease_s=60)
    rest = list(lines)
    assert [line for line in parsed(begun + rest) if "event" in line] == parsed(rest)[:1]  # as it was at first
    assert parsed(rest)[-1]["end"]["complete"] is False
    assert take_in(other, begun + rest) == []
    with other.read() as session:
        assert jobs.browse(session) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [], "line 1: must be"),
        (lambda lines: ['{"clr-export": {"version": 2}}', *lines[1:]], "line 1: must be"),
        (lambda lines: [lines[0], "{", *lines[1:]], "line 2: must be a JSON object"),
        (lambda lines: [lines[0], *lines[2:]], "must begin with a line of kind job"),
        (lambda lines: [*lines[:2], '{"wish": {}}', *lines[2:]], "one is of 'wish'"),
        (lambda lines: [lines[0], lines[1].replace('"mode"', '"mood"'), *lines[2:]], "mood: unknown here"),
        (lambda lines: [lines[0], lines[1].replace("20", "x0"), *lines[2:]], "holds another kind"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_no_export_is_refused(
    database: Database, other: Database, change: Callable[[list[str]], list[str]], said: str
) -> None:
    submit(database)
    with pytest.raises(StoreError, match=said):
        take_in(other, change(export(database)))
    with other.read() as session:
        assert jobs.browse(session) == []


def test_a_job_whose_idempotency_key_is_taken_is_refused(database: Database, other: Database) -> None:
    job_id = finished(database)
    submit(other, idempotency_key="k", idempotency_digest="other")
    with pytest.raises(Conflict, match=f"job {job_id} does not go together"):
        take_in(other, export(database))
    assert optuna.get_all_study_names(studies.storage(other.url)) == []


def test_every_table_that_belongs_to_jobs_is_exported() -> None:
    mine = {table.name for table in Base.metadata.sorted_tables if "clr_jobs" in refers_to(table)}
    assert {table.name for table in transfer.TABLES.values()} == mine | {Job.__tablename__}


def refers_to(table: Any) -> set[str]:
    """Tables that a table's rows cannot do without, themselves or through others."""
    found = {key.column.table for key in table.foreign_keys}
    return {one.name for one in found}.union(*map(refers_to, found))


def test_the_commands_move_a_job_from_one_home_to_another(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_sqlite: Path
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        shutil.copy(migrated_sqlite, tmp_path / name / "clr.db")
    old = Database(f"sqlite:///{tmp_path}/old/clr.db")
    job_id, running = finished(old), submit(old)
    with old.begin() as session:
        jobs.claim(session, owner="w", lease_s=60)
        tokens.create(session, "ann", "submit")
    monkeypatch.setenv("CLR_HOME", str(tmp_path / "old"))
    exported = run("export", "--all")
    assert (exported.code, exported.err) == (0, "left out, because they are running: 1 jobs\n")
    assert is_one_error_line(run("export"))
    assert is_one_error_line(run("export", "--all", job_id))
    refused = run("export", running)
    assert (refused.code, "is running" in refused.err) == (1, True)
    monkeypatch.setenv("CLR_HOME", str(tmp_path / "new"))
    (tmp_path / "file").write_text(exported.out)
    ran = run("import", str(tmp_path / "file"))
    assert (ran.out, ran.err) == (f"{job_id}\n", "1 jobs stored, 0 were here already\n")
    assert run("import", "-", stdin=exported.out).err == "0 jobs stored, 1 were here already\n"
    assert run("export", job_id).out == exported.out
    new = Database(f"sqlite:///{tmp_path}/new/clr.db")
    with new.read() as session:
        assert session.execute(text("SELECT action, job_id FROM clr_audit")).all() == [("import", job_id)]
    for database in (old, new):
        database.dispose()
    studies.dispose()
