"""How much a suggestion depends on luck: the standard deviation of log10 of both bounds over 20 seeds, for every tool.

    python -m benchmarks.scatter                              # the four short tasks
    python -m benchmarks.scatter --costs --tools clr          # ours alone, also at other budgets
    python -m benchmarks.scatter fashion_long --tools clr     # a long task

A seed decides initial weights and the order of the data, for every tool alike. A peer gives one rate, and so its bounds
scatter alike. With the results file of benchmarks.quality, the suggestions made there are not made again.
"""

from collections.abc import Sequence
from math import log10
from statistics import geometric_mean, pstdev
from typing import Any

from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown
from benchmarks.tools import TOOLS, suggest

FIRST_SEED = 101


def scatter(suggestions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Standard deviations in decades, of the suggestions that there are."""
    usable = [one for one in suggestions if "error" not in one]
    bounds = {
        "max_lr": [one["max_lr"] for one in usable],
        "base_lr": [one["max_lr"] / one["ratio"] for one in usable],
    }
    return {
        "decades": {name: pstdev(map(log10, rates)) if rates else None for name, rates in bounds.items()},
        "mean": {name: geometric_mean(rates) if rates else None for name, rates in bounds.items()},
        "answers": len(usable),
        "of": len(suggestions),
    }


def line(tool: str, name: str, found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    if not found["answers"]:
        return [tool, name, "", "", "", f"0/{found['of']}"]
    decades, mean = found["decades"], found["mean"]
    cells = [f"{mean['max_lr']:.3g}", f"{decades['max_lr']:.3f}", f"{decades['base_lr']:.3f}"]
    return [tool, name, *cells, f"{found['answers']}/{found['of']}"]


def measure(farm: Farm, names: Sequence[str], tools: Sequence[str], seeds: int) -> str:
    """Every task with every tool; the table."""
    started = {
        (tool, name): [farm.start(suggest, name, tool, FIRST_SEED + k) for k in range(seeds)]
        for name in names
        for tool in tools
    }
    found = {pair: scatter([future.result() for future in futures]) for pair, futures in started.items()}
    for (tool, name), one in found.items():
        farm.note(f"scatter of {tool} on {name}", one)
    head = ["tool", "task", "max_lr", "sd log10 max_lr", "sd log10 base_lr", "answers"]
    return markdown(head, [line(tool, name, found[tool, name]) for tool in tools for name in names])


def main() -> None:
    """Measure the tasks named on the command line."""
    parser = Command(__doc__, tools=TOOLS, costs=True)
    parser.add_argument("--seeds", type=int, default=20)
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        print(measure(farm, chosen.tasks, chosen.tools, chosen.seeds))


if __name__ == "__main__":
    main()
