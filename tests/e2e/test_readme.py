import json
import re
from pathlib import Path

import pytest

from clr.commands import DECIDES
from clr.commands.reports import Reports
from clr.run import Run
from clr.spec import JobSpec
from service.cli import app
from service.external.reports import Ended, Reported
from service.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()


def test_every_setting_is_in_the_table_and_no_other() -> None:
    table = {
        name for line in SETTINGS.splitlines() if line.startswith("| `CLR_") for name in re.findall(r"CLR_\w+", line)
    }
    client_side = {"CLR_URL", "CLR_TOKEN"}
    assert table == {f"CLR_{field}".upper() for field in Settings.model_fields} | client_side


def test_every_command_shown_exists() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {str(group.name) for group in app.registered_groups}
    shown = set(re.findall(r"^clr (\w+)", README, re.MULTILINE)) | set(re.findall(r"`clr (\w+)", README))
    assert shown
    assert shown <= commands


@pytest.mark.parametrize("text", [(ROOT / "examples/digits.json").read_text(), *re.findall(r"-d '(.*?)'", README)])
def test_every_job_shown_is_valid(text: str) -> None:
    assert JobSpec.model_validate(json.loads(text)).task == "digits"


def test_every_body_in_the_guide_for_external_trainers_is_valid() -> None:
    spec, point, result = re.findall(r"-d '(.*?)'", (ROOT / "docs/external.md").read_text())
    assert JobSpec.model_validate_json(spec).mode == "external"
    assert Reported.model_validate_json(point).points[0].step == 100
    assert Ended.model_validate_json(result).state == "complete"


def test_every_document_in_the_guide_for_commands_is_what_it_says() -> None:
    spec, handed, lines = re.findall(r"```json\n(.*?)```", (ROOT / "docs/commands.md").read_text(), re.DOTALL)
    assert JobSpec.model_validate_json(spec).mode == "command"
    run = json.loads(handed)
    assert run.keys() == {*DECIDES, "stage", "number", "attempt"}
    reports = Reports(Run(**{name: run[name] for name in DECIDES}))
    told = [point for line in lines.splitlines() for point in reports.take(line.encode())]
    assert [point.metric for point in [*told, *reports.due()]] == [None, 0.93]
    assert reports.is_whole


def test_every_folder_on_the_map_exists() -> None:
    (table,) = re.findall(r"## Map\n\n```\n(.*?)```", README, re.DOTALL)
    folders = [line.split()[0] for line in table.splitlines()]
    assert len(folders) == 8
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_every_target_shown_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "serve", "test", "lint"} <= targets
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets


def test_the_page_of_settings_has_each_with_its_default_and_what_it_is() -> None:
    rows = re.findall(r"^\| `CLR_(\w+)` \| (.*?) \| (.*) \|$", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    written = {name.lower(): (default.strip("`"), what) for name, default, what in rows}
    places = {"home": "~/.clr", "database_url": "sqlite:///$CLR_HOME/clr.db", "checkpoints": "$CLR_HOME/checkpoints"}
    places |= {"notify_secret_file": "$CLR_HOME/notify-secret"}

    def default(name: str, value: object) -> str:
        if value == ():
            return "none"
        shown = f"{value:g}" if isinstance(value, float) else str(value).lower()
        return places.get(name, "unset" if value is None else shown)

    fields = Settings.model_fields.items()
    assert {name: written.get(name) for name in Settings.model_fields} == {
        name: (default(name, field.default), field.description) for name, field in fields
    }
    assert written.keys() - Settings.model_fields.keys() == {"url", "token"}
