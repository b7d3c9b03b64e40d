"""Commands for who runs the service: they work on its database and machine, not through its API."""

import sys
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from service.terminal import AsJson, say, settings, store

MARKS = {"ok": "  ok", "warn": "warn", "fail": "FAIL"}


def doctor(json: AsJson = False) -> None:
    """Check database, migrations, tokens, workers, disk, port, GPU and Ray; say what to mend."""
    from service import screen
    from service.doctor import examine

    findings = []
    for finding in examine(settings()):
        findings.append(finding)
        if not json:
            mend = f"; {finding.mend}" if finding.mend else ""
            typer.echo(f"{MARKS[finding.state]}  {finding.check:<11}{finding.found}{mend}")
    if json:
        screen.data([asdict(finding) for finding in findings])
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def prune(
    older_than: Annotated[str, typer.Option(help="How long ago a job ended: a number and s, m, h, d or w, as 90d.")],
    state: Annotated[
        Literal["succeeded", "failed", "cancelled"] | None, typer.Option(help="Only jobs that ended so.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, print what would be.")] = False,
) -> None:
    """Delete old finished jobs with all that belongs to them; prints their ids."""
    from service import retention
    from service.store.jobs import FINISHED

    older, number = retention.age(older_than), 0
    with store() as database:
        for job_id in retention.prune(database, older, [state] if state else FINISHED, dry_run=dry_run):
            typer.echo(job_id)
            number += 1
    say(f"{number} jobs {'would be deleted' if dry_run else 'deleted'}")


def export(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs that no worker is at.")] = False,
) -> None:
    """Print jobs with curves, events, recommendation and study as JSON lines, for clr import elsewhere."""
    from service import transfer

    if bool(ids) == everything:
        raise typer.TyperException("give the ids of jobs, or --all")
    with store() as database:
        for line in transfer.export(database, transfer.movable(database) if everything else ids or []):
            sys.stdout.write(f"{line}\n")
        if everything and (running := transfer.running(database)):
            say(f"left out, because they are running: {running} jobs")


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What clr export printed; - reads standard input.")],
) -> None:
    """Store exported jobs under their ids; those that are here already are left as they are."""
    import optuna

    from service import transfer

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    number = {True: 0, False: 0}
    with store() as database, sys.stdin if file == "-" else open(file, encoding="utf-8") as lines:
        for job_id, is_new in transfer.take_in(database, lines):
            number[is_new] += 1
            if is_new:
                typer.echo(job_id)
    say(f"{number[True]} jobs stored, {number[False]} were here already")
