"""How far trainings with the suggested bounds end below the best that a grid finds, for every tool, and at what cost.

    python -m benchmarks.quality                              # the four short tasks
    python -m benchmarks.quality --costs                      # also our range test at other budgets
    python -m benchmarks.quality cifar_long --device cuda     # a long task
    python -m benchmarks.quality cifar_long --seeds 1         # each schedule trained once

Each tool suggests on three seeds; each suggestion is trained on three others, or on fewer by choice. A run scores its
last validation metric, or as a constant predictor when it diverged. Regret is in per cent of (reference - constant
predictor), the reference being the best that a grid of schedules reached on the same seeds:

- short tasks: max_lr on a grid of factor 2 (ratio 4, two cycles, seed 0; longer while the best lies on an edge); then
  ratios x cycles on the six best rates; the five best of all, trained on the three seeds.
- long tasks: max_lr on that grid at ratio 10 and one cycle, each rate trained on the three seeds.

A run has collapsed when it ends in the lowest tenth between constant predictor and reference. Cost is the steps of a
test relative to one training.
"""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from statistics import fmean, pstdev
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown, span
from benchmarks.tools import PEER_CYCLES, PEER_RATIO, TOOLS, suggest, train

SUGGESTION_SEEDS, TRAINING_SEEDS, GRID_SEED = (101, 102, 103), (1, 2, 3), 0

RATIOS, CYCLES = (3.0, 4.0, 10.0, 20.0), (1, 2, 4)
OUR_RATIO, OUR_CYCLES = 10.0, 1
RATES_KEPT, FINALISTS, MOST_DOUBLINGS = 6, 5, 6

Setting = tuple[float, float, int]
"""max_lr, ratio, cycles."""

Scores = dict[Setting, list[float]]


def trained(farm: Farm, case: Case, settings: Iterable[Setting], seeds: Sequence[int]) -> Scores:
    """Final metrics of each setting, one per seed, all trained side by side."""
    started = {one: [farm.start(train, case.name, *one, seed) for seed in seeds] for one in settings}
    return {one: [future.result() for future in futures] for one, futures in started.items()}


def ranked(scores: Scores) -> list[Setting]:
    """By mean score, the best first."""
    return sorted(scores, key=lambda one: -fmean(scores[one]))


def sweep(farm: Farm, case: Case, ratio: float, cycles: int, seeds: Sequence[int]) -> Scores:
    """The grid of rates, made longer while its best lies on an edge."""
    settings = [(case.lowest * 2**k, ratio, cycles) for k in range(case.rates)]
    scores = trained(farm, case, settings, seeds)
    for _ in range(MOST_DOUBLINGS):
        best = ranked(scores)[0]
        beyond = {min(scores): best[0] / 2, max(scores): best[0] * 2}.get(best)
        if beyond is None:
            break
        scores |= trained(farm, case, [(beyond, ratio, cycles)], seeds)
    return scores


def reference(farm: Farm, case: Case, seeds: Sequence[int] = TRAINING_SEEDS) -> dict[str, Any]:
    """The best schedule of the grid, and what it reached."""
    if case.long:
        scores = sweep(farm, case, OUR_RATIO, OUR_CYCLES, seeds)
    else:
        rates = [rate for rate, _, _ in ranked(sweep(farm, case, PEER_RATIO, PEER_CYCLES, (GRID_SEED,)))[:RATES_KEPT]]
        grid = trained(farm, case, product(rates, RATIOS, CYCLES), (GRID_SEED,))
        scores = trained(farm, case, ranked(grid)[:FINALISTS], seeds)
    best = ranked(scores)[0]
    return {"setting": best, "scores": scores[best], "grid": [(one, scores[one]) for one in sorted(scores)]}


def evaluated(farm: Farm, case: Case, tool: str, seeds: Sequence[int] = TRAINING_SEEDS) -> dict[str, Any]:
    """What a tool suggests, and what trainings with it reach."""
    started = [farm.start(suggest, case.name, tool, seed) for seed in SUGGESTION_SEEDS]
    suggestions = [future.result() for future in started]
    usable = [one for one in suggestions if "error" not in one]
    settings = [(one["max_lr"], one["ratio"], one["cycles"]) for one in usable]
    scores = trained(farm, case, settings, seeds)
    print(f"{case.name} {tool}: trained", file=sys.stderr, flush=True)
    return {
        "suggestions": usable,
        "errors": len(suggestions) - len(usable),
        "scores": [scores[one] for one in settings],
    }


def regrets(case: Case, best: dict[str, Any], found: dict[str, Any]) -> list[list[float]]:
    """Per suggestion, per training seed."""
    top = fmean(best["scores"])
    return [[100 * (top - score) / (top - case.floor) for score in scores] for scores in found["scores"]]


def summary(case: Case, best: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The figures of one tool on one task; a tool that never suggests anything leaves all to be regretted."""
    rows = regrets(case, best, found)
    runs = [regret for row in rows for regret in row]
    return {
        "regret": fmean(runs) if runs else 100.0,
        "worst": max(map(fmean, rows), default=100.0),
        "collapsed": sum(regret >= 90 for regret in runs),
        "runs": len(runs),
        "errors": found["errors"],
        "cost": fmean([one["cost"] for one in found["suggestions"]] or [0]),
    }


def case_table(case: Case, best: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """One task: the reference, then every tool, the best first."""

    def line(name: str, settings: Sequence[Setting], scores: Sequence[float]) -> list[str]:
        base = span([rate / ratio for rate, ratio, _ in settings]) if settings else ""
        top = span([rate for rate, _, _ in settings]) if settings else ""
        return [name, base, top, f"{fmean(scores):.4f} ± {pstdev(scores):.4f}" if scores else ""]

    lines = [[*line(f"grid's best, {best['setting'][2]} cycle(s)", [best["setting"]], best["scores"]), "0", *[""] * 4]]
    totals = {tool: summary(case, best, found) for tool, found in rows.items()}
    for tool in sorted(rows, key=lambda tool: totals[tool]["regret"]):
        found, total = rows[tool], totals[tool]
        settings = [(one["max_lr"], one["ratio"], one["cycles"]) for one in found["suggestions"]]
        lines.append(
            [
                *line(tool, settings, [score for scores in found["scores"] for score in scores]),
                f"{total['regret']:.1f}",
                f"{total['worst']:.1f}",
                f"{total['collapsed']}/{total['runs']}",
                f"{total['errors']}/{len(SUGGESTION_SEEDS)}",
                f"{total['cost']:.2f}",
            ]
        )
    head = ["tool", "base_lr", "max_lr", "metric", "regret %", "worst test %", "collapsed", "no answer", "cost"]
    return f"\n### {case.name}, {case.length.steps} steps\n\n{markdown(head, lines)}"


def overall_table(totals: dict[str, dict[str, dict[str, Any]]]) -> str:
    """All tasks: mean regret of each, over all of them, the worst task, and the cost."""
    names = list(next(iter(totals.values())))

    def line(tool: str) -> list[str]:
        of = totals[tool].values()
        each = [one["regret"] for one in of]
        collapsed, runs, errors = (sum(one[field] for one in of) for field in ("collapsed", "runs", "errors"))
        return [
            tool,
            *(f"{regret:.1f}" for regret in [*each, fmean(each), max(each)]),
            f"{collapsed}/{runs}",
            f"{errors}/{len(each) * len(SUGGESTION_SEEDS)}",
            f"{fmean(one['cost'] for one in of):.2f}",
        ]

    tools = sorted(totals, key=lambda tool: fmean(one["regret"] for one in totals[tool].values()))
    head = ["tool", *names, "mean", "worst task", "collapsed", "no answer", "cost"]
    return f"\n### Regret in %\n\n{markdown(head, map(line, tools))}"


def measure(farm: Farm, names: Sequence[str], tools: Sequence[str], seeds: Sequence[int] = TRAINING_SEEDS) -> str:
    """Every task with every tool; the tables."""
    cases = [CASES[name] for name in sorted(names, key=lambda name: not CASES[name].long)]  # the longest first
    with ThreadPoolExecutor(len(cases) * (1 + len(tools))) as threads:
        best = {case.name: threads.submit(reference, farm, case, seeds) for case in cases}
        found = {
            (case.name, tool): threads.submit(evaluated, farm, case, tool, seeds) for case in cases for tool in tools
        }
        try:
            references = {name: future.result() for name, future in best.items()}
            rows = {name: {tool: found[name, tool].result() for tool in tools} for name in names}
        except BaseException:
            farm.stop()
            raise
    texts = [case_table(CASES[name], references[name], rows[name]) for name in names]
    totals = {
        tool: {name: summary(CASES[name], references[name], rows[name][tool]) for name in names} for tool in tools
    }
    for name in names:
        farm.note(f"quality of {name}", {"reference": references[name], "tools": {t: totals[t][name] for t in tools}})
    return "\n".join([*texts, overall_table(totals)])


def main() -> None:
    """Measure the tasks named on the command line."""
    parser = Command(__doc__, tools=TOOLS, costs=True)
    parser.add_argument(
        "--seeds", type=int, default=len(TRAINING_SEEDS), choices=[1, 2, 3], help="trainings of each schedule"
    )
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        print(measure(farm, chosen.tasks, chosen.tools, TRAINING_SEEDS[: chosen.seeds]))


if __name__ == "__main__":
    main()
