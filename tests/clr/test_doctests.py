import doctest
import pkgutil
from importlib import import_module

import pytest

import clr

MODULES = ["clr", *(module.name for module in pkgutil.walk_packages(clr.__path__, "clr."))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    module = import_module(name)
    assert doctest.testmod(module).failed == 0


def test_the_modules_with_closed_forms_have_examples() -> None:
    finder = doctest.DocTestFinder()
    for name in (
        "clr.schedules.policies",
        "clr.schedules.torch_scheduler",
        "clr.schedules.cycles",
        "clr.run",
        "clr.tuning.cost",
    ):
        assert any(found.examples for found in finder.find(import_module(name)))
