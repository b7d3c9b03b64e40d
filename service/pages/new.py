"""``/jobs/new``: a form made from the spec's schema and the task's, with what the job would cost."""

import json
import secrets
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any
from urllib.parse import parse_qs

import yaml
from fastapi import Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from clr.errors import InvalidArgument, broken_rules
from clr.spec import JobSpec
from clr.tuning.cost import PredictedCost, predict
from service import actions, submission
from service.pages.form import MISSING, Field, Sent, document, field, held
from service.pages.page import page_router, render
from service.parameters import NO_NUL, DatabaseOfApp, SchemasOfApp, SettingsOfApp, Who
from service.problems import InvalidField, invalid_fields
from service.settings import Settings
from service.store import jobs, workers
from service.store.database import Database

router = page_router()

MOST_INPUTS = 500
SECTIONS: dict[str, tuple[str, ...]] = {
    "Training": ("name", "args", "epochs", "budget", "batch_size", "optimizer", "seed"),
    "Range test": ("range_test",),
    "Search": ("search",),
    "Confirmation": ("confirm",),
    "Resources and limits": ("resources", "limits", "priority"),
}

LEFT_OUT = ("task", "mode", "command", "iterations_per_epoch", "direction")
"""What the form has a place of its own for, and what only jobs that no worker's task trains may say."""


async def _sent(request: Request) -> Sent:
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return parse_qs(body, keep_blank_values=True, max_num_fields=MOST_INPUTS)
    except ValueError as error:
        raise InvalidArgument("body", f"must hold at most {MOST_INPUTS} inputs") from error


SentForm = Annotated[Sent, Depends(_sent)]
Text = Annotated[str, Query(max_length=200, pattern=NO_NUL)]


@router.get("/jobs/new")
def page(
    request: Request,
    database: DatabaseOfApp,
    settings: SettingsOfApp,
    task: Text = "",
    origin: Annotated[Text, Query(alias="from", description="a job whose spec to begin with")] = "",
) -> Response:
    spec: dict[str, Any] = {}
    if origin:
        with database.read() as session:
            spec = jobs.get(session, origin).spec
    form = _Form(database, settings, task or spec.get("task", ""))
    return form.render(request, form.filled(spec))


@router.post("/jobs/new")
def submit(
    request: Request,
    database: DatabaseOfApp,
    settings: SettingsOfApp,
    schemas: SchemasOfApp,
    who: Who,
    sent: SentForm,
) -> Response:
    """Submit the job, or show what it would cost; what breaks a rule is told beside its field."""
    if not sent.get("task"):
        raise InvalidArgument("task", "must be the name of a task")
    form = _Form(database, settings, (sent.get("task") or [""])[0])
    spec, errors = form.checked(sent)
    if spec is None or "preview" in sent:
        return form.render(request, sent, errors, status=200 if "preview" in sent else 422)
    key = f"{(sent.get('key') or [''])[0][:64]}-{submission.digest(spec)}"  # submitted twice, it is one job
    job = actions.submit(database, settings, schemas, spec, by=who.name, role=who.role, key=key)
    return RedirectResponse(f"/jobs/{job.id}", 303)


class _Form:
    """The form for one task."""

    def __init__(self, database: Database, settings: Settings, name: str) -> None:
        with database.read() as session:
            self.tasks = {row.name: row for row in workers.tasks(session)}
            newest = [job.task for job in jobs.browse(session, limit=1) if job.task in self.tasks]
            usual = [*newest, *self.tasks, ""]
        self.database, self.settings = database, settings
        self.task = name or usual[0]
        self.fields = dict(_spec_fields())
        published = self.tasks.get(self.task)
        if published is not None:
            self.fields["args"] = field(published.schema, "args")
        self.doc = published.doc if published else ""

    def filled(self, spec: Mapping[str, Any]) -> Sent:
        """What the form holds to begin with: a spec, and defaults for the rest."""
        values: dict[str, list[str]] = {"key": [secrets.token_hex(8)]}
        for key, one in self.fields.items():
            if one is not None:
                given = MISSING if key == "args" and self.task != spec.get("task") else spec.get(key, MISSING)
                values |= held(one, given)
        return values

    def checked(self, sent: Sent) -> tuple[JobSpec | None, list[InvalidField]]:
        """The spec that was sent, or why it is none."""
        body = self.body(sent)
        try:
            spec = JobSpec.model_validate(body)
            with self.database.read() as session:
                submission.check(session, self.settings, spec)
        except ValidationError as error:
            return None, invalid_fields(broken_rules(error.errors(), body))
        except InvalidArgument as error:
            return None, invalid_fields(error)
        return spec, []

    def body(self, sent: Sent) -> dict[str, Any]:
        """The document to submit: what differs from the defaults."""
        given = {key: document(one, sent) for key, one in self.fields.items() if one is not None}
        shown = {key: value for key, value in given.items() if value is not MISSING}
        return {"task": self.task} | shown

    def render(
        self, request: Request, sent: Sent, errors: list[InvalidField] | None = None, status: int = 200
    ) -> Response:
        errors = self.checked(sent)[1] if errors is None else errors
        body = self.body(sent)
        curl = f"curl -s {request.base_url}v1/jobs -H 'Content-Type: application/json' \\\n     -d "
        beside, above = self._placed(errors)
        return render(
            request,
            "new.html",
            status,
            form=self,
            sections=self.sections(),
            sent=sent,
            errors=beside,
            problems=above,
            cost=None if errors else self._cost(body),
            yaml=yaml.safe_dump(body, sort_keys=False, allow_unicode=True),
            curl=curl + shlex.quote(json.dumps(body, ensure_ascii=False)),
        )

    def sections(self) -> dict[str, list[Field]]:
        """The fields under their headings; what no heading names comes last."""
        named = {key for keys in SECTIONS.values() for key in keys}
        rest = [key for key in self.fields if key not in named]
        listed = {**SECTIONS, "Resources and limits": (*SECTIONS["Resources and limits"], *rest)}
        return {title: [one for key in keys if (one := self.fields.get(key))] for title, keys in listed.items()}

    def _placed(self, errors: list[InvalidField]) -> tuple[dict[str, list[str]], list[InvalidField]]:
        """Each error beside its field; those of none, for the head of the form."""
        paths = {path for one in self.fields.values() if one for path in one.paths}
        beside: dict[str, list[str]] = {}
        above = []
        for error in errors:
            path = error.field
            while path and path not in paths:
                path = path.rpartition(".")[0]
            if path:
                beside.setdefault(path, []).append(error.rule)
            else:
                above.append(error)
        return beside, above

    def _cost(self, body: dict[str, Any]) -> PredictedCost:
        published = self.tasks.get(self.task)
        return predict(JobSpec.model_validate(body), published.schema if published else None)


@cache
def _spec_fields() -> tuple[tuple[str, Field | None], ...]:
    schema = JobSpec.model_json_schema()
    names = (name for name in schema["properties"] if name not in LEFT_OUT)
    return tuple((name, field(schema["properties"][name], name, definitions=schema["$defs"])) for name in names)
