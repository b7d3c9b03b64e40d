"""What a job's submitter reads of the worker's files and secrets, and runs of its modules: nothing, on a real Ray."""

from pathlib import Path

import pytest

from clr.bundles.archive import digest_of
from clr.bundles.packing import pack
from service.store import code
from service.store.database import Database
from tests.worker.conftest import SECRET, SECRETS, Work, working
from worker.engine import Engine

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

RULE = "args.data: must be a path in a folder that jobs may read here"
OF_A_MODULE = "task: must be a registered task, or a function of a module that jobs may use here"
TABLE = "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(64))
SHORT = {"epochs": 20, "search": None}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A worker's home with a table in its data folder, and secrets around it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text(TABLE)
    (tmp_path / "db-password").write_text(SECRET)
    (tmp_path / "clr.csv").write_text(f"{SECRET},b\n1,2\n")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "clr.csv")
    return tmp_path


def test_a_tokens_job_reads_the_data_folder_and_nothing_else(database: Database, engine: Engine, home: Path) -> None:
    outside = ["/proc/self/environ", "/etc/shadow", "/etc/passwd", "link", f"{home}/clr.csv", "../db-password"]
    with working(database, engine, home):
        work = Work(database)

        def submit(path: str, **more: str) -> str:
            return work.submit("tabular", args={"data": path, "target": "b"}, submitted_by="ann", **SHORT)

        refused = {path: submit(path) for path in outside}
        within = [submit("table.csv"), submit(f"{home}/data/table.csv")]
        for path, job_id in refused.items():
            assert work.ended(job_id).error == f"{RULE} ({home}/data), but got {path!r}"
        for job_id in within:
            assert work.succeeded(job_id).error is None


def test_folders_that_the_operator_names_bind_jobs_without_a_token_too(
    database: Database, engine: Engine, home: Path
) -> None:
    args = {"data": f"{home}/data/table.csv", "target": "b"}
    with working(database, engine, home):
        assert Work(database).succeeded(Work(database).submit("tabular", args=args, **SHORT))
    with working(database, engine, home, data=[home / "elsewhere", home / "more"]):
        error = Work(database).ended(Work(database).submit("tabular", args=args, **SHORT)).error
    assert str(error).startswith(f"{RULE} ({home}/elsewhere, {home}/more)")


def test_no_secret_is_in_the_environment_of_the_processes_that_train(work: Work) -> None:
    error = work.ended(work.submit("odd_tasks:tells_its_environment")).error
    assert "'PATH'" in error
    assert SECRET not in error
    assert not [name for name in SECRETS if name in error]


def test_only_modules_that_the_operator_allows_are_imported(work: Work, tmp_path: Path) -> None:
    """``venv.__main__`` ends the process that imports it; a module of the attacker's folder leaves a mark."""
    tasks = ["clr.bundles.process:load_from", "venv.__main__:x", "this:x", "odd_tasks_more:x", "clr.tasks:load_task"]
    args = {"bundle": "evil", "data": None, "folder": str(tmp_path), "policy": "ignore", "trainee": {}}
    for task in tasks:
        error = work.ended(work.submit(task, args=args, submitted_by="ann")).error
        assert error == f"{OF_A_MODULE} (odd_tasks), but got {task!r}"


CODE = """\
import clr
from clr.bundles.process import load_from
from clr.tasks.digits import digits
def mine(data: "pathlib.Path") -> clr.Task:
    raise ValueError(data.read_text())
import pathlib
"""


def test_a_jobs_task_must_be_its_bundles_own_and_its_paths_lie_there_or_in_the_data_folders(
    database: Database, engine: Engine, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("source")
    (source / "task.py").write_text(CODE)
    (source / "own.txt").write_text("mine to read")
    (source / "venv").mkdir()
    (source / "venv" / "readme.txt").touch()
    data = pack(source)
    with database.begin() as session:
        code.put(session, digest_of(data), data, 2)
    with working(database, engine, home, allow_code=True):
        work = Work(database)

        def error(task: str, **args: str) -> str:
            job_id = work.submit(task, args=args, code=digest_of(data), submitted_by="ann", **SHORT)
            return str(work.ended(job_id).error)

        assert error("task:mine", data="own.txt").startswith("ValueError: mine to read (task.py")
        assert error("task:mine", data="table.csv").startswith("ValueError: a,b 0,0")
        assert error("task:mine", data="../../db-password").startswith(RULE)
        others = ["venv.__main__:x", "clr.bundles.process:load_from", "odd_tasks:slow"]
        for task in (*others, "task:load_from", "task:digits"):
            assert error(task).startswith(f"{OF_A_MODULE} (task), but got {task!r}")
