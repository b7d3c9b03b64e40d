"""What the project says of itself agrees with itself."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_changelog_and_citation_have_the_projects_version() -> None:
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest[1] == PROJECT["version"] == cited["version"]


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("package", ["clr", "service", "worker"])
def test_tests_lie_as_the_packages_do(package: str) -> None:
    for test in (ROOT / "tests" / package).rglob("test_*.py"):
        folder = ROOT / test.relative_to(ROOT / "tests").parent
        assert (folder / "__init__.py").is_file(), f"{test} tests no package"


def test_before_a_commit_runs_what_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]


def test_nothing_installed_makes_ray_slow_to_import() -> None:
    """Where it is, jsonschema compiles its grammars at import: two seconds in each of nine processes of a Ray."""
    assert find_spec("rfc3987_syntax") is None
