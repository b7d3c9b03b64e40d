"""What commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clr.tuning.recommendation import better_alternatives, instead_of


def data(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def document(values: Mapping[str, Any], as_json: bool) -> None:
    """Names and values, those that are null left out."""
    if _for_machines(as_json):
        data(values)
        return
    table = _table("", "", header=False)
    for name, value in values.items():
        if value is not None:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            table.add_row(name, Text(shown))
    Console().print(table)


def forecast(values: Mapping[str, Any], as_json: bool) -> None:
    """What a job would cost, its stages one by one, below its spec with all defaults."""
    if not _for_machines(as_json):
        cost = values["cost"]
        document(values["spec"], False)
        values = {name: cost[name] for name in ("relative_to_one_training", "epochs", "steps")} | cost["stages"]
    document(values, as_json)


def rows(values: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Records with the same fields, one a line."""
    shown = [{name: _plain(value) for name, value in row.items()} for row in values]
    if _for_machines(as_json):
        data(shown)
        return
    table = _table(*(shown[0] if shown else []))
    for row in shown:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    Console().print(table)


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z") if isinstance(value, datetime) else value


def tasks(values: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if _for_machines(as_json):
        data(values)
        return
    table = _table("task", "arguments", "what it trains")
    for task in values:
        arguments = task["schema"].get("properties", {})
        shown = ", ".join(f"{name}={json.dumps(about.get('default'))}" for name, about in arguments.items())
        table.add_row(task["name"], Text(shown), Text(task["doc"].split("\n")[0]))
    Console().print(table)


def task(value: Mapping[str, Any], as_json: bool) -> None:
    """One task: its docstring, and of each argument what it may be, its default and what it is for."""
    if _for_machines(as_json):
        data(value)
        return
    schema = value["schema"]
    table = _table("argument", "must be", "default", "what it is")
    for name, about in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", []) else json.dumps(about.get("default"))
        rules = {key: rule for key, rule in about.items() if key not in ("title", "description", "default")}
        shown = ", ".join(f"{key} {rule if isinstance(rule, str) else json.dumps(rule)}" for key, rule in rules.items())
        table.add_row(name, Text(shown), Text(default), Text(about.get("description", "")))
    console = Console()
    console.print(Text(f"{value['name']}: {value['doc']}"))
    console.print(table)


def recommendation(found: Mapping[str, Any], as_json: bool) -> None:
    """The summary of what was found: bounds and stepsize, how sure, and the runs behind it."""
    if as_json:
        data(found)
        return
    console = Console(soft_wrap=True)
    for other in better_alternatives(found):
        console.print(Text(f"{instead_of(other)}\n{other['python']}"))
    console.print(_bounds(found))
    if found.get("evidence"):
        console.print(_runs(found["evidence"]))
        console.print(Text(f"beside its baselines: {found['evidence']['verdict']}"))
    for kind in ("reasons", "warnings"):
        for line in found.get(kind) or []:
            console.print(Text(f"{kind.removesuffix('s')}: {line}"))
    if found["job_id"] is not None:
        console.print(Text(f"paste it: clr recommend {found['job_id']} --format python"))


def _bounds(found: Mapping[str, Any]) -> Table:
    table = _table("", "", "", header=False)
    interval = found.get("interval") or {}
    for name in ("base_lr", "max_lr"):
        if found[name] is not None:
            low_high = " to ".join(f"{value:.3g}" for value in interval.get(name, ()))
            table.add_row(name, f"{found[name]:.4g}", Text(low_high))
    if found["stepsize"] is not None:
        table.add_row("stepsize", f"{found['stepsize']} steps", f"{found['stepsize_multiplier']:.3g} epochs")
        table.add_row("policy", found["policy"], "")
    table.add_row("confidence", found["confidence"], f"from the {found['source'].replace('_', ' ')}")
    return table


def _runs(evidence: Mapping[str, Any]) -> Table:
    table = _table("run", "lr", f"{evidence['metric']} after {evidence['epochs']:g} epochs")
    for run in evidence["runs"]:
        rate = f"{run['lr']:.4g}" if run.get("lr") is not None else ""
        table.add_row(run["name"], rate, _mean_of(run))
    return table


def _mean_of(run: Mapping[str, Any]) -> str:
    if len(run.get("values", ())) == 1:
        return f"{_number(run['mean'])}, one seed"
    return f"{_number(run['mean'])} +- {_number(run['std'])}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _table(*columns: str, header: bool = True) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD if header else None, show_header=header, pad_edge=False)


def _for_machines(as_json: bool) -> bool:
    return as_json or not sys.stdout.isatty()
