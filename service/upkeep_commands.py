"""Commands for who runs the service: they work on its database and machine, not through its API."""

from dataclasses import asdict

import typer

from service.terminal import AsJson, settings

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
