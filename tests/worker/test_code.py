"""Uploaded code, run by a real worker on a real Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clr.bundles.archive import digest_of
from clr.bundles.packing import pack
from service.store import code
from service.store.database import Database
from tests.clr.bundles.test_requirements import WHEEL, wheel
from tests.worker.conftest import Work, working
from worker.engine import Engine

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Submit = Callable[..., str]

TASK = """\
import clr, torch
{imports}
def mine(hidden: int = 8) -> clr.Task:
    {first}
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    return clr.Task(
        model=lambda: torch.nn.Sequential(torch.nn.Linear(8, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2)),
        train=(x, y), loss=torch.nn.functional.cross_entropy
    )
"""


def task(imports: str = "", first: str = "pass") -> str:
    return TASK.format(imports=imports, first=first)


@pytest.fixture
def work(database: Database, engine: Engine, tmp_path: Path) -> Iterator[Work]:
    with working(database, engine, tmp_path, allow_code=True, code_requirements="install"):
        yield Work(database)


@pytest.fixture
def submit(database: Database, tmp_path: Path) -> Submit:
    """Submits a job with the code in the files given."""

    def submit(files: dict[str, str | bytes], task: str = "task:mine", **spec: object) -> str:
        for name, text in files.items():
            path = tmp_path / str(hash(str(files))) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return send(database, pack(tmp_path / str(hash(str(files)))), task, **spec)

    return submit


def send(database: Database, data: bytes, task: str, **spec: object) -> str:
    with database.begin() as session:
        code.put(session, digest_of(data), data, 1)
    return Work(database).submit(task, code=digest_of(data), **{"epochs": 10, "search": None, **spec})


def test_bundles_whose_modules_have_the_same_names_do_not_meet(work: Work, submit: Submit, tmp_path: Path) -> None:
    """Nor does a module with the name of the worker's own. The error tells which of them were met."""
    package = "__import__('tiny').NAME if importlib.util.find_spec('tiny') else 'nothing'"
    first = f"raise ValueError(', '.join([helper.NAME, worker.NAME, open('name.txt').read(), {package}]))"
    files = [
        {
            "task.py": task("import helper, importlib.util, worker", first),
            "helper.py": f"NAME = 'helper {number}'",
            "worker.py": f"NAME = 'worker {number}'",
            "name.txt": f"file {number}",
        }
        for number in range(2)
    ]
    required = {"requirements.txt": f"./{WHEEL}", WHEEL: wheel(tmp_path, "a package")}
    jobs = [submit(files[0] | required), submit(files[1])]
    assert [work.ended(job).error for job in jobs] == [
        "ValueError: helper 0, worker 0, file 0, a package (task.py, line 4)",
        "ValueError: helper 1, worker 1, file 1, nothing (task.py, line 4)",
    ]


FILES = {
    "task.py": task("from net.layers import WIDTH"),
    "net/__init__.py": "",
    "net/layers.py": "WIDTH = 8",
    "net/deep.py": "#\n1 / 0",
    "missing.py": "import clr\n\nimport nosuch",
    "indirect.py": "import net.deep",
    "syntax.py": "def mine() -> int:\n  pass pass",
    "exits.py": "raise SystemExit(3)",
    "empty.py": "x = 1",
    "number.py": "\ndef mine() -> int:\n  return 1",
    "wrong.py": task(first="return 1"),
}
UNKNOWN = "task: must be importable as module:function, but got "
ERRORS = {
    "missing": f"{UNKNOWN}'missing:mine': No module named 'nosuch' (missing.py, line 3)",
    "indirect": "ZeroDivisionError: division by zero (net/deep.py, line 2)",
    "syntax": "SyntaxError: invalid syntax (syntax.py, line 2)",
    "exits": "SystemExit: 3 (exits.py, line 1)",
    "empty": f"{UNKNOWN}'empty:mine': module 'empty' has no attribute 'mine' (empty.py)",
    "nowhere": "task: must be a registered task, or a function of a module that jobs may use here (empty, exits, ",
    "number": "task: must be a function annotated `-> clr.Task`, as 'number:mine' is not, but got number.mine (",
    "wrong": "task: must return a clr.Task, as wrong:mine does not, but got 1 (wrong.py, line 3)",
}


def test_a_bundles_task_is_trained_and_what_is_wrong_with_others_is_told_in_one_line_with_its_place(
    work: Work, submit: Submit
) -> None:
    broken = {submit(FILES, f"{module}:mine"): error for module, error in ERRORS.items()}
    broken[submit(FILES, args={"hidden": "x"})] = (
        "args.hidden: input should be a valid integer, but got 'x' (task.py, line 3)"
    )
    broken[submit(FILES, args={"hiden": 1})] = "args.hiden: must be one of hidden, but got 1 (task.py, line 3)"
    good = submit(FILES, args={"hidden": 16}, epochs=40, search={"trials": 2}, confirm=None)
    for broken_job, error in broken.items():
        told = str(work.ended(broken_job).error)
        assert told.startswith(error)
        assert "\n" not in told
    job = work.ended(good)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.range_test["bounds"]["max_lr"] > 0


def test_a_worker_runs_no_code_unless_it_is_told_to(
    database: Database, engine: Engine, tmp_path: Path, submit: Submit
) -> None:
    with working(database, engine, tmp_path):
        job = Work(database).ended(submit({"task.py": task()}))
    assert job.error == "code: this worker runs no uploaded code; its admin may set CLR_ALLOW_CODE=true"
