import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from clr.client.sync import Client
from clr.tuning.formats import FORMATS
from service import cli
from service.store import jobs, recommendations, workers
from service.store.database import Database, is_migrated
from tests.conftest import started
from tests.service.conftest import Ran, Run, is_one_error_line

COMMANDS = [
    *(
        "serve",
        "api",
        "worker",
        "migrate",
        "submit",
        "watch",
        "show",
        "recommend",
        "track",
        "cancel",
        "tasks",
        "analyze",
    ),
    "token",
    *("init", "mcp", "doctor", "prune", "export", "import"),
]
DIGITS = {
    "name": "digits",
    "doc": "Handwritten digits.\n\nFrom scikit-learn.",
    "schema": {"type": "object", "properties": {"hidden": {"type": "integer", "default": 64}}},
}
FOUND = {
    "source": "confirm",
    "policy": "triangular",
    "base_lr": 0.01,
    "max_lr": 0.1,
    "ratio": 10.0,
    "stepsize": 100,
    "step_size_up": 100,
    "step_size_down": 100,
    "stepsize_multiplier": 5.0,
    "iterations_per_epoch": 20,
    "gamma": None,
    "interval": {"base_lr": [0.005, 0.02], "max_lr": [0.05, 0.2]},
    "confidence": "high",
    "reasons": ["three seeds agree"],
    "warnings": ["only a demonstration"],
    "evidence": {
        "metric": "accuracy",
        "direction": "maximize",
        "epochs": 10,
        "seeds": 3,
        "runs": [
            {"name": "recommended", "mean": 0.97, "std": 0.001},
            {"name": "fixed", "lr": 0.05, "mean": 0.96, "std": 0.002},
        ],
        "verdict": "CLR ahead by 0.01 +- 0.002 of a fixed rate",
    },
    "cost": {"steps": 100, "seconds": 1.0, "relative_to_one_training": 1.0},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Path:
    """A CLR_HOME with a migrated database."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(migrated_sqlite, home / "clr.db")
    return home


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """Where ``clr api`` answers, a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "service.cli", "api", "--fd", str(fd)]
        environment = os.environ | {"CLR_HOME": str(home), "CLR_ALLOW_CODE": "true"}
        process = subprocess.Popen(command, pass_fds=[fd], env=environment, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of the command line's settings, with one task published."""
    monkeypatch.setenv("CLR_HOME", str(home))
    database = Database(f"sqlite:///{home}/clr.db")
    with database.begin() as session:
        workers.publish(session, owner="w", host="h", slots={"cpus": 1}, tasks=[DIGITS])
    yield database
    database.dispose()


@pytest.fixture
def api(url: str, store: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the API that CLR_URL leads to; no job is left waiting for the next test's worker."""
    monkeypatch.setenv("CLR_URL", url)
    with Client(url) as client:
        yield client
        for job in client.jobs(state="queued"):
            job.cancel()


def finish(store: Database, end: Callable[..., None], *args: Any) -> None:
    """Claim the next job, find something, and end it."""
    with store.begin() as session:
        claimed = jobs.claim(session, owner="w", lease_s=60)
    assert claimed is not None
    job, lease = claimed
    with store.begin() as session:
        recommendations.put(session, lease, FOUND | {"job_id": job.id}, task="digits", optimizer="SGD")
        end(session, lease, *args)


def test_help_lists_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(command in ran.out for command in COMMANDS)
    assert run().out == ran.out


def test_the_command_line_is_imported_without_what_its_commands_need() -> None:
    program = "import service.cli, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"torch", "ray", "optuna", "sqlalchemy", "fastapi", "httpx", "numpy", "pydantic"}
    loaded = set(done.stdout.split())
    assert heavy.isdisjoint(loaded)
    assert {name for name in loaded if name.split(".")[0] == "clr"} <= {"clr", "clr.extras"}  # they load nothing else


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").out == f"clr {version('clr')}\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"_CLR_COMPLETE": "complete_bash", "COMP_WORDS": "clr su", "COMP_CWORD": "1"},
        {"_CLR_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "clr su"},
    ],
)
def test_a_shell_completes_commands(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "service.cli"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True, timeout=60)
    assert "submit" in done.stdout


def test_init_writes_a_task_that_runs_as_it_is_and_the_line_that_submits_it(
    run: Run, api: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("init", "own")
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "own/clr_task.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
    assert re.match(r"base_lr 0\.\d+ max_lr 0\.\d+", done.stdout)
    program, *args = shlex.split(ran.out)
    assert (program, args[-1]) == ("clr", "--wait")
    job = api.job(run(*args[:-1]).out.strip())
    assert (job.document["task"], job.document["spec"]["args"]) == ("clr_task:my_task", {"hidden": 64})


def test_init_leaves_what_is_there_as_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "clr_job.yaml").write_text("mine")
    ran = run("init", str(tmp_path))
    assert is_one_error_line(ran)
    assert "clr_job.yaml" in ran.err
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("clr_job.yaml", "mine")]


def test_a_dry_run_tells_spec_and_cost_and_stores_nothing(run: Run, api: Client) -> None:
    spec = '{"task": "digits", "epochs": 7, "name": "dry"}'
    document = json.loads(run("submit", "-", "--dry-run", stdin=spec).out)
    assert document["spec"]["epochs"] == 7
    assert document["cost"]["relative_to_one_training"] > 1
    shown = run("submit", "-", "--dry-run", stdin=spec, terminal=True).out
    assert "relative_to_one_training" in shown
    assert list(api.jobs(name="dry")) == []


@pytest.mark.parametrize("spec", ['{"task": "digits", "epochs": 0}', '{"task": "a:b", "args": 3}'])
def test_a_dry_run_of_what_would_be_refused_is_one_line(run: Run, api: Client, spec: str) -> None:
    assert is_one_error_line(run("submit", "-", "--dry-run", stdin=spec))


@pytest.mark.parametrize(
    "args", [["unknown"], ["show"], ["recommend", "x", "--format", "xml"], ["api", "--port", "70000"]]
)
def test_a_mistyped_command_is_one_line_and_exit_code_2(run: Run, args: list[str]) -> None:
    ran = run(*args)
    assert is_one_error_line(ran)
    assert ran.code == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spec.json", '{\n\t"task": "digits", "range_test": {"min_lr": 1e-3}, "name": "2026-01-01"}'),
        ("spec.yaml", "task: digits\nrange_test: {min_lr: 1e-3}\nname: 2026-01-01\n"),
    ],
)
def test_submit_prints_the_id_of_the_job_in_the_file_and_nothing_else(
    run: Run, api: Client, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    for ran in (run("submit", str(tmp_path / name)), run("submit", "-", stdin=text)):
        assert (ran.code, ran.err) == (0, "")
        spec = api.job(ran.out.rstrip("\n")).document["spec"]
        assert (spec["task"], spec["range_test"]["min_lr"], spec["name"]) == ("digits", 0.001, "2026-01-01")


def test_a_refused_job_is_one_line_that_names_the_field(run: Run, api: Client) -> None:
    ran = run("submit", "-", stdin='{"task": "digits", "args": {"hidden": "many"}}')
    assert is_one_error_line(ran)
    assert "args.hidden" in ran.err


@pytest.mark.parametrize("text", ["task: [", "- digits", "", '{"task": "digits", "epochs": NaN}'])
def test_a_file_that_is_no_spec_is_one_line(run: Run, api: Client, text: str) -> None:
    assert is_one_error_line(run("submit", "-", stdin=text))


def test_a_file_that_is_not_there_is_one_line_that_names_it(run: Run) -> None:
    ran = run("submit", "nowhere.json")
    assert is_one_error_line(ran)
    assert "nowhere.json" in ran.err


def test_submit_and_wait_prints_what_was_found(run: Run, api: Client, store: Database) -> None:
    def work() -> None:
        while not list(api.jobs(state="queued")):
            pass
        finish(store, jobs.succeed)

    worker = threading.Thread(target=work)
    worker.start()
    ran = run("submit", "-", "--wait", stdin="task: digits")
    worker.join(10)
    assert ran.code == 0
    for shown in ("0.01", "0.005 to 0.02", "100 steps", "high", "fixed", "CLR ahead", "only a demonstration"):
        assert shown in ran.out
    assert "succeeded 100 %" in ran.err


def test_watch_prints_the_recommendation_as_json_when_asked(run: Run, api: Client, store: Database) -> None:
    job = api.submit({"task": "digits"})
    finish(store, jobs.succeed)
    ran = run("watch", job.id, "--json")
    assert ran.code == 0
    assert json.loads(ran.out) == job.recommendation().to_dict()


@pytest.mark.parametrize(
    ("end", "args", "told"),
    [(jobs.fail, ["out of\nmemory"], "failed: out of memory"), (jobs.cancelled, [], "cancelled")],
)
def test_watching_a_job_that_does_not_succeed_fails(
    run: Run, api: Client, store: Database, end: Callable[..., None], args: list[str], told: str
) -> None:
    job = api.submit({"task": "digits"})
    finish(store, end, *args)
    ran = run("watch", job.id)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith(f"error: job {job.id} {told}\n")


def test_ctrl_c_stops_the_watching_and_not_the_job(api: Client) -> None:
    job = api.submit({"task": "digits"})
    command = [sys.executable, "-m", "service.cli", "watch", job.id]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("queued")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == f"stopped watching; the job goes on: clr watch {job.id}\n"
    assert process.returncode == 130
    assert job.refresh().state == "queued"


def test_a_reader_that_closes_early_is_no_traceback(api: Client) -> None:
    job = api.submit({"task": "digits"})
    command = [sys.executable, "-m", "service.cli", "show", job.id]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_show_prints_json_for_programs_and_a_table_for_people(run: Run, api: Client) -> None:
    job = api.submit({"task": "digits", "name": "mine"})
    assert json.loads(run("show", job.id).out)["name"] == "mine"
    assert json.loads(run("show", job.id, "--json", terminal=True).out)["name"] == "mine"
    table = run("show", job.id, terminal=True).out
    assert "mine" in table
    assert "{" not in table.split("spec")[0]


def test_tasks_prints_json_for_programs_and_a_table_for_people(run: Run, api: Client) -> None:
    assert json.loads(run("tasks").out) == [DIGITS]
    table = run("tasks", terminal=True).out
    assert "hidden=64" in table
    assert "From scikit-learn" not in table


def test_one_task_is_shown_with_its_whole_docstring_and_what_each_argument_may_be(run: Run, api: Client) -> None:
    assert json.loads(run("tasks", "digits").out) == DIGITS
    shown = run("tasks", "digits", terminal=True).out
    assert "From scikit-learn" in shown
    assert "hidden" in shown
    assert "type integer" in shown
    assert is_one_error_line(run("tasks", "digit"))


def test_recommend_prints_each_format_and_fails_while_there_is_nothing(run: Run, api: Client, store: Database) -> None:
    job = api.submit({"task": "digits"})
    assert is_one_error_line(run("recommend", job.id))
    finish(store, jobs.succeed)
    assert json.loads(run("recommend", job.id).out)["base_lr"] == 0.01
    assert yaml.safe_load(run("recommend", job.id, "--format", "yaml").out)["base_lr"] == 0.01
    assert "CyclicLR(" in run("recommend", job.id, "--format", "python").out
    for name in FORMATS:
        assert run("recommend", job.id, "--format", name).code == 0


def test_cancel_prints_the_state_and_fails_on_a_finished_job(run: Run, api: Client) -> None:
    job = api.submit({"task": "digits"})
    assert run("cancel", job.id).out == "cancelled\n"
    assert is_one_error_line(run("cancel", job.id))


def test_no_service_is_one_line_that_names_its_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("CLR_URL", url)
    ran = run("tasks")
    assert is_one_error_line(ran)
    assert url in ran.err


def test_migrate_creates_the_tables(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLR_HOME", str(tmp_path / "new"))
    assert run("migrate").code == 0
    database = Database(f"sqlite:///{tmp_path}/new/clr.db")
    assert is_migrated(database)
    database.dispose()


def test_analyze_reads_the_bounds_of_each_seed_from_a_file_or_standard_input(run: Run, tmp_path: Path) -> None:
    rows = ["lr,loss,seed"]
    for seed in range(3):
        for step in range(200):  # falls from 1e-4 on, is lowest near 0.1, and explodes
            log_lr = -5 + 6 * step / 199 + 0.02 * seed
            loss = 2.3 / (1 + 10 ** (2 * (log_lr + 2.5))) + 0.2 + 10 ** (4 * (log_lr + 0.6))
            rows.append(f"{10**log_lr:.6g},{min(loss, 50):.6g},{seed}")
    text = "\n".join(rows)
    (tmp_path / "curve.csv").write_text(text)
    ran = run("analyze", str(tmp_path / "curve.csv"), "--direction", "minimize")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["base_lr"] < found["max_lr"] < 1
    assert found["max_lr"] > 0.003
    assert json.loads(run("analyze", "-", "--direction", "minimize", stdin=text).out) == found


def test_analyze_reads_files_of_other_kinds_and_columns_that_are_picked(run: Run, tmp_path: Path) -> None:
    lr = [1e-5 * 1.1**step for step in range(120)]
    loss = [2.3 / (1 + (rate / 0.003) ** 2) + 0.2 + (rate / 0.3) ** 4 for rate in lr]
    files = {
        "history.json": json.dumps({"lr": lr, "loss": loss}),
        "keras.csv": "\n".join(["epoch,loss,lr,val_loss", *(f"0,{y},{x},1" for x, y in zip(lr, loss, strict=True))]),
        "semicolons.csv": "\n".join(["lr;loss", *(f"{x};{y}" for x, y in zip(lr, loss, strict=True))]),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = [json.loads(run("analyze", str(tmp_path / name)).out)["max_lr"] for name in files]
    assert found == [found[0]] * 3
    assert 0.01 < found[0] < 0.3
    picked = run("analyze", str(tmp_path / "keras.csv"), "--loss", "los")
    assert is_one_error_line(picked)
    assert "epoch, loss, lr, val_loss" in picked.err
    by_metric = json.loads(run("analyze", str(tmp_path / "keras.csv"), "--metric", "val_loss").out)
    assert by_metric["reasons"][0] == "the metric never fell by more than its noise"


def test_analyze_reads_an_event_file_and_lists_the_tags_it_has(run: Run) -> None:
    file = str(Path(__file__).parents[1] / "clr" / "range_tests" / "data" / "range_test.tfevents")
    by_metric = json.loads(run("analyze", file).out)
    assert 0.001 < by_metric["max_lr"] < 0.3
    assert "recorded metric" in by_metric["reasons"][0]
    assert "metric from 'val/accuracy'" in by_metric["reasons"][-1]
    ran = run("analyze", file, "--loss", "los")
    assert is_one_error_line(ran)
    assert "train/lr, train/loss, val/accuracy" in ran.err


def test_submit_uploads_a_folder_of_code(run: Run, api: Client, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "task.py").write_text("import clr")
    (tmp_path / "job.yaml").write_text("task: task:mine\n")
    command = ["submit", str(tmp_path / "job.yaml"), "--code", str(tmp_path / "src")]
    first, second = (run(*command).out.strip() for _ in range(2))
    assert first != second
    assert len(api.job(first).document["spec"]["code"]) == 64
    assert api.job(first).document["spec"] == api.job(second).document["spec"]
    (tmp_path / "job.yaml").write_text(f"task: task:mine\ncode: {'0' * 64}\n")
    ran = run(*command)
    assert is_one_error_line(ran)
    assert "--code" in ran.err


def test_analyze_says_which_line_is_no_curve(run: Run) -> None:
    ran = run("analyze", "-", stdin="lr,loss\n0.1,high\n")
    assert is_one_error_line(ran)
    assert "line 2" in ran.err


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_database_that_is_not_migrated_is_one_line(command: str, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "service.cli", command]
    environment = {"CLR_HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60)
    ran = Ran(done.returncode, done.stdout, "".join(s for s in done.stderr.splitlines(True) if "INFO" not in s))
    assert is_one_error_line(ran)
    assert "clr migrate" in ran.err


@pytest.mark.parametrize(
    ("name", "value"), [("CLR_DATABASE_URL", "mysql://x/y"), ("CLR_DATABASE_URL", "?"), ("CLR_PORT", "none")]
)
def test_a_bad_setting_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert is_one_error_line(run("migrate"))


@pytest.mark.parametrize("command", ["serve", "api"])
def test_a_port_that_is_taken_is_one_line_that_names_it(run: Run, store: Database, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ran = run(command, "--port", str(port))
    assert is_one_error_line(ran)
    assert f"port {port} " in ran.err
