"""The command line that the benchmarks share: tasks, tools and the farm's options, each checked."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CASES, SHORT
from benchmarks.tools import SHARES, at_cost, missing


class Command(argparse.ArgumentParser):
    """Options of one benchmark.

    Args:
        doc: of its module; the help.
        tasks: whether it takes names of tasks.
        tools: names that ``--tools`` may choose from.
        costs: whether ``--costs`` adds our range test at other budgets to them.
    """

    def __init__(self, doc: str | None, *, tasks: bool = True, tools: Sequence[str] = (), costs: bool = False) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        if tasks:
            self.add_argument("tasks", nargs="*", help=f"of {', '.join(CASES)}; all short ones unless named")
        if tools:
            self.add_argument("--tools", nargs="+", default=tools, choices=tools, metavar="TOOL", help=", ".join(tools))
        if costs:
            self.add_argument("--costs", action="store_true", help=f"our range test also at {SHARES} trainings")
        self.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one torch thread each")
        self.add_argument("--device", default="cpu", help="cpu or cuda")
        self.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
        self.add_argument("--out", type=Path, help="results file (JSON); what it holds already is not measured again")

    def chosen(self) -> argparse.Namespace:
        """What was asked for; ends the process where that cannot be done."""
        found = self.parse_args()
        if "tasks" in found:
            found.tasks = found.tasks or SHORT
            if unknown := [name for name in found.tasks if name not in CASES]:
                self.error(f"tasks: must be of {', '.join(CASES)}, but got {', '.join(unknown)}")
        if "tools" in found and (lacking := missing(found.tools)):
            self.error(f"{', '.join(lacking)}: not installed; pip install -e '.[bench]', or choose --tools")
        if "costs" in found and found.costs:
            found.tools = [*found.tools, *map(at_cost, SHARES)]
        return found
