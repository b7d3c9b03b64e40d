import re

import pytest
from sqlalchemy import text

from service.access import Principal, identify
from service.store import audit, jobs, tokens
from service.store.database import Database
from service.store.errors import Conflict, LimitReached, NotFound, StoreError

SPEC = {"spec": {}, "name": "demo", "task": "digits"}


def make(database: Database, name: str = "ann", role: str = "submit") -> str:
    with database.begin() as session:
        return tokens.create(session, name, role)


def holder(database: Database, token: str) -> Principal | None:
    with database.read() as session:
        return identify(session, token)


def test_a_token_is_its_holder_until_it_is_revoked(database: Database) -> None:
    token = make(database)
    assert re.fullmatch(r"clr_[\w-]{43}", token)
    assert holder(database, token) == Principal("ann", "submit")
    assert [holder(database, wrong) for wrong in ("", token[:-1], token.upper(), "\ud800", "\0")] == [None] * 5
    with database.begin() as session:
        tokens.revoke(session, "ann")
    assert holder(database, token) is None


def test_nothing_of_a_token_is_stored_but_its_hash(database: Database) -> None:
    token = make(database)
    with database.read() as session:
        stored = str(session.execute(text("SELECT * FROM clr_tokens")).all())
    assert tokens.digest(token) in stored
    assert token not in stored
    assert token.removeprefix("clr_") not in stored


def test_a_name_stands_for_one_token_for_ever(database: Database) -> None:
    make(database)
    with database.begin() as session:
        tokens.revoke(session, "ann")
    with pytest.raises(Conflict, match="name: must be new"):
        make(database)
    with database.read() as session:
        assert tokens.any_exist(session)
        assert [row.revoked_at is None for row in tokens.listed(session)] == [False]


@pytest.mark.parametrize(("name", "role"), [("", "read"), ("a b", "read"), ("-x", "read"), ("a" * 65, "read")])
def test_a_name_that_breaks_its_rule_is_refused(database: Database, name: str, role: str) -> None:
    with pytest.raises(StoreError, match="name: must"):
        make(database, name, role)


def test_a_role_that_is_none_is_refused_and_so_is_revoking_nobody(database: Database) -> None:
    with pytest.raises(StoreError, match="role: must be one of read, submit, admin, but got 'root'"):
        make(database, "ann", "root")
    with database.begin() as session, pytest.raises(NotFound, match="'bob'"):
        tokens.revoke(session, "bob")


def test_the_bootstrap_token_is_the_one_of_the_file_also_after_it_changed(database: Database) -> None:
    first, second = "1" * 64, "2" * 64
    for token, is_new in ((first, True), (first, False), (second, True)):
        with database.begin() as session:
            assert tokens.adopt(session, token) is is_new
    assert holder(database, first) is None
    assert holder(database, second) == Principal("bootstrap", "admin")
    with database.begin() as session:
        tokens.revoke(session, "bootstrap")
    with database.begin() as session:
        assert not tokens.adopt(session, second)
    assert holder(database, second) is None


@pytest.mark.parametrize("token", ["", "1" * 31, "1" * 31 + " 2", "é" * 40])
def test_a_weak_bootstrap_token_is_refused(database: Database, token: str) -> None:
    with database.begin() as session, pytest.raises(StoreError, match="bootstrap token must be at least 32"):
        tokens.adopt(session, token)


def test_a_token_has_so_many_jobs_queued_and_others_have_their_own(database: Database) -> None:
    with database.begin() as session:
        mine = {"submitted_by": "ann", "queued_limit": 2}
        again = {"idempotency_key": "k", "idempotency_digest": "d"}
        first, _ = jobs.submit(session, **SPEC, **mine, **again)
        jobs.submit(session, **SPEC, **mine)
        with pytest.raises(LimitReached, match=r"may have 2 jobs queued \(CLR_QUEUED_LIMIT\), and 'ann' has"):
            jobs.submit(session, **SPEC, **mine)
        found, is_new = jobs.submit(session, **SPEC, **mine, **again)
        assert (found.id, is_new) == (first.id, False)
        jobs.submit(session, **SPEC, submitted_by="bob", queued_limit=2)
        jobs.submit(session, **SPEC)
        jobs.request_cancel(session, first.id)
        jobs.submit(session, **SPEC, **mine)


def test_the_audit_is_paged_newest_first_and_outlives_the_job(database: Database) -> None:
    with database.begin() as session:
        job_id = jobs.submit(session, **SPEC)[0].id
        for action in ("submit", "cancel"):
            audit.record(session, "ann", action, job_id=job_id)
        jobs.request_cancel(session, job_id)
        jobs.delete(session, job_id)
        audit.record(session, None, "token revoke", detail="ann")
    with database.read() as session:
        newest, cancelled = audit.browse(session, limit=2)
        (oldest,) = audit.browse(session, before=cancelled.id)
    assert (newest.token, newest.action, newest.job_id, newest.detail) == (None, "token revoke", None, "ann")
    assert (oldest.token, oldest.action, oldest.job_id, oldest.detail) == ("ann", "submit", job_id, None)
    assert oldest.at <= newest.at
