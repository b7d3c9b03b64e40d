from collections.abc import Callable
from typing import Any

import httpx
import pytest

from clr.errors import InvalidArgument
from clr.spec import JobSpec
from service import actions
from service.settings import Settings
from service.store import audit, jobs
from service.store.database import Database
from service.store.errors import Conflict, NotAllowed, NotFound
from service.submission import Schemas


@pytest.fixture
def submitted(database: Database, settings: Settings) -> Callable[..., str]:
    def submitted(**given: Any) -> str:
        spec = JobSpec(task="my trainer", mode="external", epochs=3, iterations_per_epoch=5, direction="maximize")
        return actions.submit(database, settings, Schemas(), spec, by="ann", **given).id

    return submitted


def acts(database: Database) -> list[tuple[str | None, str, str | None]]:
    with database.read() as session:
        return [(act.token, act.action, act.job_id) for act in audit.browse(session)]


def test_a_job_is_submitted_cancelled_and_deleted_and_each_act_has_its_author(
    database: Database, submitted: Callable[..., str]
) -> None:
    job_id = submitted()
    assert actions.cancel(database, job_id, by="bob").state == "cancelled"
    actions.delete(database, job_id, by="eve")
    assert acts(database)[:3] == [("eve", "delete", job_id), ("bob", "cancel", job_id), ("ann", "submit", job_id)]
    with pytest.raises(NotFound), database.read() as session:
        jobs.get(session, job_id)


def test_the_same_key_again_is_the_same_job_and_one_act(database: Database, submitted: Callable[..., str]) -> None:
    assert submitted(key="k") == submitted(key="k")
    assert len(acts(database)) == 1


def test_only_a_finished_job_is_deleted(database: Database, submitted: Callable[..., str]) -> None:
    job_id = submitted()
    with pytest.raises(Conflict, match=f"job {job_id} is queued: cancel it first"):
        actions.delete(database, job_id, by=None)
    assert [action for _, action, _ in acts(database)] == ["submit"]


def test_what_cannot_be_submitted_has_no_price(database: Database, settings: Settings) -> None:
    spec = JobSpec(task="digits", name="nul\0")
    with pytest.raises(InvalidArgument, match="name: must hold neither NUL"):
        actions.plan(database, settings, Schemas(), spec)


COMMAND = JobSpec(
    mode="command", command=["python", "train.py"], epochs=3, iterations_per_epoch=5, direction="maximize"
)


@pytest.mark.parametrize(
    ("allow_code", "role", "rule"),
    [(False, "admin", "CLR_ALLOW_CODE=true"), (True, "submit", "needs a token of role admin")],
)
def test_a_command_needs_what_uploading_code_needs(
    database: Database, settings: Settings, allow_code: bool, role: str, rule: str
) -> None:
    chosen = settings.model_copy(update={"allow_code": allow_code})
    for act in (actions.plan, actions.submit):
        given = {"by": "ann"} if act is actions.submit else {}
        with pytest.raises(NotAllowed, match=rule):
            act(database, chosen, Schemas(), COMMAND, role=role, **given)
    assert acts(database) == []


def test_an_admin_submits_a_command_where_code_is_allowed(database: Database, settings: Settings) -> None:
    chosen = settings.model_copy(update={"allow_code": True})
    job = actions.submit(database, chosen, Schemas(), COMMAND, by="ann", role="admin")
    assert (job.mode, job.task, job.spec["command"]) == ("command", "train.py", ["python", "train.py"])


def test_a_page_does_what_the_api_does(client: httpx.Client, submitted: Callable[..., str], database: Database) -> None:
    over_api, on_page = submitted(), submitted()
    client.post(f"/v1/jobs/{over_api}/cancel")
    client.post(f"/jobs/{on_page}/cancel", headers={"Sec-Fetch-Site": "same-origin"})
    assert [action for _, action, _ in acts(database)][:2] == ["cancel", "cancel"]
