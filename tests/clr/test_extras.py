import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import clr.extras
from clr.extras import EXTRAS, MissingExtra, require

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORT_NAMES = {"psycopg[binary]": "psycopg", "mlflow-skinny": "mlflow"}

ALSO_OF_THE_LIBRARY = {"alembic", "jinja2", "jsonschema", "sqlalchemy"}
"""What Altair and Optuna bring, which the library has in any case."""

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
"""


def modules(extra: str) -> set[str]:
    """What an extra of pyproject.toml brings, those of the extras in it too."""
    found = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if requirement.startswith("clr["):
            found |= {name for inner in requirement[4:-1].split(",") for name in modules(inner)}
        else:
            name = requirement.partition(">")[0]
            found.add(IMPORT_NAMES.get(name, name).replace("-", "_"))
    return found


def python(code: str, absent: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs code where some packages are not installed."""
    whole = WITHOUT.format(absent=set(absent)) + code
    return subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, cwd=ROOT, timeout=100)


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_brings_the_modules_that_are_looked_for(extra: str) -> None:
    assert modules(extra) == set(EXTRAS[extra])


def test_all_is_every_extra_of_a_part_of_clr() -> None:
    assert modules("all") == {name for names in EXTRAS.values() for name in names}


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clr.extras, "find_spec", lambda name: None if name == "fastapi" else name)
    require("cli", "worker")
    with pytest.raises(MissingExtra, match=r"'server', of which fastapi is not installed: pip install 'clr\[server\]'"):
        require("server")


def test_the_import_of_clr_loads_no_library() -> None:
    ran = python(
        "import clr; print([m for m in ('numpy', 'scipy', 'pydantic', 'torch', 'optuna') if m in sys.modules])"
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


def test_the_library_needs_no_extra() -> None:
    code = """
from importlib import import_module
from pkgutil import walk_packages
import clr
for module in walk_packages(clr.__path__, "clr."):
    if not module.name.startswith(("clr.integrations.", "clr.client.tool_server")):
        import_module(module.name)
for name in clr.__all__:
    getattr(clr, name)
"""
    ran = python(code, absent=tuple({name for names in EXTRAS.values() for name in names} - ALSO_OF_THE_LIBRARY))
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("code", "absent", "extra"),
    [
        ("from service.command import main; main()", "typer", "cli"),
        ("sys.argv = ['clr', 'serve']; from service.command import main; main()", "fastapi", "server"),
        ("sys.argv = ['clr', 'worker']; from service.command import main; main()", "ray", "worker"),
        ("sys.argv = ['clr', 'migrate']; from service.command import main; main()", "pydantic_settings", "server"),
        ("import clr.integrations.lightning", "lightning", "lightning"),
        ("import clr.integrations.transformers", "transformers", "transformers"),
    ],
)
def test_whoever_lacks_a_part_is_told_how_to_install_it(code: str, absent: str, extra: str) -> None:
    ran = python(code, absent=(absent,))
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.endswith(f"of which {absent} is not installed: pip install 'clr[{extra}]'"), ran.stderr
