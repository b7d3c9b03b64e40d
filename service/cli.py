"""The command line, ``clr``: starts the service, and drives one from a terminal or a script.

Nothing but Typer is imported until a command runs, so that ``clr --help`` answers at once.
"""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clr import extras
from service import token_commands, upkeep_commands
from service.terminal import AsJson, say, settings

if TYPE_CHECKING:
    from clr.client.sync import Client, Job

app = typer.Typer(
    help="Learning-rate bounds as a service: base_lr, max_lr and stepsize, with the evidence for them.",
    pretty_exceptions_enable=False,
)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as printed by submit.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: CLR_HOST or 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0: a free one.  [default: CLR_PORT or 8000]")]
INTERRUPTED, TERMINATED = 130, 143
Column = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Its column, or tag in an event file.  [default: found by its name]"),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"clr {version('clr')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.add_typer(token_commands.app, name="token")
app.command()(upkeep_commands.doctor)
app.command()(upkeep_commands.prune)
app.command()(upkeep_commands.export)
app.command("import")(upkeep_commands.import_)


@app.command()
def serve(host: Host = None, port: Port = None) -> None:
    """Run everything on this machine: API, a worker with its own Ray, and an SQLite database."""
    extras.require("server", "worker")
    from service.serving import serve

    serve(settings(host=host, port=port), say=say)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="Socket inherited from clr serve.")] = None,
) -> None:
    """Run the API alone; any number of them share one database."""
    extras.require("server")
    from service.serving import run_api

    run_api(settings(host=host, port=port), fd)


@app.command()
def worker() -> None:
    """Run a worker alone: it claims jobs from the database and trains."""
    extras.require("worker")
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker"])


@app.command()
def migrate() -> None:
    """Create the database's tables, or bring them up to date."""
    from service.serving import adopt_bootstrap_token
    from service.store.database import migrate

    given = settings()
    migrate(given.database_url)
    adopt_bootstrap_token(given)


@app.command()
def submit(
    spec: Annotated[str, typer.Argument(metavar="FILE", help="Job spec, JSON or YAML; - reads standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end and print what was found.")] = False,
    code: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Upload this folder, and find the task module:function in it.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Trainings that the whole job may cost, instead of what the spec says.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Store nothing; print the spec with its defaults, and what it would cost.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Submit a job and print its id."""
    from service import screen
    from service.spec_file import read

    job_spec = read(spec)
    if budget is not None:
        job_spec["budget"] = budget
    if code is not None and job_spec.get("code") is not None:
        raise typer.TyperException(f"code: is {job_spec['code']!r} in {spec}; leave it out there, or --code here")
    if dry_run and wait:
        raise typer.TyperException("give either --wait or --dry-run: without a job there is nothing to wait for")
    with _client() as client:
        if dry_run:
            screen.forecast(client.predict(job_spec), json)
            return
        if code is not None:
            job_spec["code"] = client.upload_code(code)
        job = client.submit(job_spec)
        if not wait:
            typer.echo(job.id)
            return
        say(f"job {job.id}")
        _follow(job, json)


@app.command()
def init(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="Where to; made if it is not there.")] = ".",
) -> None:
    """Write a task of your own, which runs as it is, and its job; print the line that submits them."""
    from pathlib import Path

    from service import starter

    line = starter.write(Path(folder))
    say(f"wrote {starter.TASK_FILE} and {starter.JOB_FILE}; the service must take code: CLR_ALLOW_CODE=true clr serve")
    typer.echo(line)


@app.command()
def mcp() -> None:
    """Serve agents: the service's calls as MCP tools on standard input and output. Needs clr[mcp]."""
    from clr.client.tool_server import tool_server

    tool_server().run()


@app.command()
def watch(job_id: JobId, json: AsJson = False) -> None:
    """Follow a job to its end, then print what was found."""
    with _client() as client:
        _follow(client.job(job_id), json)


@app.command()
def show(job_id: JobId, json: AsJson = False) -> None:
    """Show a job: its state, progress, cost and spec."""
    from service import screen

    with _client() as client:
        screen.document(client.job(job_id).document, json)


@app.command()
def recommend(
    job_id: JobId,
    format: Annotated[
        Literal["json", "python", "yaml", "optax", "keras", "deepspeed", "transformers", "table"],
        typer.Option(help="json and yaml: all of it; table: step and rate; all others: lines to paste."),
    ] = "json",
) -> None:
    """Print the recommendation: all of it, or as lines to paste into a script."""
    from clr.tuning.formats import WRITERS
    from service import screen

    with _client() as client:
        found = client.recommendation(job_id)
    if format == "json":
        screen.data(found.to_dict())
    else:
        typer.echo(WRITERS[format](found).rstrip("\n"))


@app.command()
def track(
    job_id: JobId,
    to: Annotated[
        str,
        typer.Option(envvar="CLR_TRACKING", help="mlflow:URI, wandb:FOLDER (written offline) or tensorboard:FOLDER."),
    ],
) -> None:
    """Write what a job found to MLflow, W&B or TensorBoard: each trial a run. Needs clr[tracking]."""
    from clr.integrations.tracking import track

    with _client() as client:
        track(client.job(job_id), to)


@app.command()
def cancel(job_id: JobId) -> None:
    """Stop a job; what was found stays. Prints its state."""
    with _client() as client:
        typer.echo(client.job(job_id).cancel().state)


@app.command()
def extend(
    job_id: JobId,
    budget: Annotated[float, typer.Option(help="Trainings that it may cost in addition.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end and print what was found.")] = False,
    json: AsJson = False,
) -> None:
    """Go on with a finished job from all that it knows. Prints its state."""
    with _client() as client:
        job = client.job(job_id).extend(budget)
        if wait:
            _follow(job, json)
        else:
            typer.echo(job.state)


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Show this one with all its arguments.")] = None,
    json: AsJson = False,
) -> None:
    """List what the workers can train, or show one task with its docstring and arguments."""
    from clr.errors import UnknownTask
    from service import screen

    with _client() as client:
        known = client.tasks()
    chosen = next((task for task in known if task["name"] == name), None)
    if name is None:
        screen.tasks(known, json)
    elif chosen is None:
        raise UnknownTask(f"task: must be one of {', '.join(task['name'] for task in known)}, but got {name!r}")
    else:
        screen.task(chosen, json)


@app.command()
def analyze(
    curve: Annotated[
        str, typer.Argument(metavar="CURVE", help="CSV, JSON, JSON lines or a TensorBoard event file; - is stdin.")
    ],
    direction: Annotated[
        Literal["maximize", "minimize"] | None,
        typer.Option(help="Whether a larger metric is better.  [default: by the metric's name]"),
    ] = None,
    lr: Column = None,
    loss: Column = None,
    metric: Column = None,
    json: AsJson = False,
) -> None:
    """Read the bounds from the curve of a range test run anywhere. Needs no service."""
    from clr.range_tests.curve_file import Picked, bounds_of_file
    from service import screen

    with sys.stdin.buffer if curve == "-" else open(curve, "rb") as source:
        bounds = bounds_of_file(source.read(), Picked(lr, loss, metric), direction)
    screen.document(bounds.to_dict(), json)


@app.command(context_settings={"allow_interspersed_args": False})
def tune(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="Starts the training of one run; see docs/commands.md.")
    ],
    epochs: Annotated[float, typer.Option(help="Length of the training to find bounds for.")],
    iterations_per_epoch: Annotated[int, typer.Option(help="Optimizer steps in an epoch.")],
    direction: Annotated[
        Literal["maximize", "minimize"] | None,
        typer.Option(help="Whether a larger metric is better.  [default: if there is one; else the loss counts]"),
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Trainings that all of it may cost.  [default: 6]")] = None,
    seed: Annotated[int, typer.Option(help="Everything random is made from it.")] = 0,
    save: Annotated[str, typer.Option(metavar="FILE", help="Where its runs are kept, to go on.")] = "clr-tune.db",
    run_seconds: Annotated[float, typer.Option(help="End a run that reports nothing for so long.")] = 600,
    json: AsJson = False,
) -> None:
    """Find the bounds for a training program of your own, on this machine. Needs no service."""
    import signal
    from pathlib import Path

    from clr.commands.program import Program
    from clr.commands.tune import tune
    from service import screen

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # which leaves nothing of the run under way

    program = Program(
        command=command, environment=os.environ, folder=Path.cwd(), direction=direction, run_seconds=run_seconds
    )
    try:
        found = tune(
            program,
            epochs=epochs,
            iterations_per_epoch=iterations_per_epoch,
            budget=budget,
            seed=seed,
            save=save,
            progress=True,
            say=say,
        )
    except KeyboardInterrupt:
        say(f"interrupted; the runs that have ended are in {save}: the same command goes on from them")
        raise
    screen.recommendation(found.to_dict(), json)
    if not json:
        typer.echo(found.to_python().rstrip("\n"))


def main() -> None:
    """Run the command line: any error is one line on stderr and an exit code above 0."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="clr", standalone_mode=False)
    except typer.TyperException as error:
        code = _fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except ModuleNotFoundError as error:
        code = _fail(extras.told(error))
    except Exception as error:
        code = _fail(_sentence(error))
    sys.exit(code)


def _fail(message: str, code: int = 1) -> int:
    say(f"error: {' '.join(message.split())}")
    return code


def _sentence(error: Exception) -> str:
    """What the project's own errors and the system's say, plainly; the kind of any other before it."""
    own = type(error).__module__.split(".")[0] in ("clr", "service") or isinstance(error, OSError)
    cause = getattr(error, "orig", None) or error  # without the statement that SQLAlchemy adds
    return str(cause) if own else f"{type(cause).__name__}: {cause}"


def _client() -> "Client":
    from clr.client.sync import Client

    return Client()


def _follow(job: "Job", json: bool) -> None:
    from service import screen

    try:
        job.wait(progress=True)
    except KeyboardInterrupt:
        say(f"stopped watching; the job goes on: clr watch {job.id}")
        raise
    if job.state != "succeeded":
        reason = job.document.get("error")
        raise typer.TyperException(f"job {job.id} {job.state}" + (f": {reason}" if reason else ""))
    screen.recommendation(job.recommendation().to_dict(), json)


if __name__ == "__main__":
    main()
