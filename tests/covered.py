"""Which lines of clr, service and worker the tests run: a pytest plugin (``-p tests.covered``) with a floor for each.

The probes are slipcover's, which go once their line has run; a tracer of Python 3.11 would double the suite's time.
Processes that tests start are not looked into.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import pytest
from slipcover import Slipcover, merge_coverage
from slipcover.importer import SlipcoverLoader

FLOORS = {"clr": 94, "service": 95, "worker": 74}
"""Per cent of each package's lines, one or two below what was measured: what depends on timing may run or not."""

ELSEWHERE = {"worker.remote"}
"""Ray's processes run it: they are sent its functions themselves, and probes do not travel."""

MOST_MISSED = 8
"""Files that are named at the end."""

PROBES = Slipcover(source=list(FLOORS))


class _Finder:
    """Puts probes into the modules of the packages as they are imported."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in FLOORS or name in ELSEWHERE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and spec.origin is not None:
            spec.loader = SlipcoverLoader(PROBES, spec.loader, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]

_of_processes: list[dict[str, Any]] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if told := node.workeroutput.get("coverage"):
        _of_processes.append(json.loads(told))


def pytest_sessionfinish(session: pytest.Session) -> None:
    mine = PROBES.get_coverage()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["coverage"] = json.dumps(mine)
        return
    for one in _of_processes:
        mine = merge_coverage(mine, one)
    run, missed = Counter[str](), Counter[str]()
    for file, lines in mine["files"].items():
        package = file.partition("/")[0]
        run[package] += len(lines["executed_lines"])
        missed[package] += len(lines["missing_lines"])
    shares = {package: 100 * run[package] / (run[package] + missed[package] or 1) for package in FLOORS}
    print("\nlines run:", ", ".join(f"{package} {share:.1f} %" for package, share in shares.items()))
    worst = sorted(mine["files"].items(), key=lambda one: -len(one[1]["missing_lines"]))[:MOST_MISSED]
    print("most missed:", ", ".join(f"{file} {len(lines['missing_lines'])}" for file, lines in worst))
    below = [package for package, share in shares.items() if share < FLOORS[package]]
    if below and session.exitstatus == pytest.ExitCode.OK:
        print("coverage: below its floor:", ", ".join(f"{package} ({FLOORS[package]} %)" for package in below))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
