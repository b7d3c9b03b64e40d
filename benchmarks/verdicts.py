"""How often what a job of six trainings says of the baselines is what twenty trainings of each schedule say.

    python -m benchmarks.verdicts                             # the four short tasks
    python -m benchmarks.verdicts digits_mlp_sgdm --searches 5

Each search is a job of its own. What it recommends, a fixed rate and one cycle, at the rates that the job trained them
at, are trained again on twenty fresh seeds that all three share, and judged by the same rule: ahead, no difference,
behind. The job's verdict agrees where it is the same, is reversed where it is the other way round, and is missing where
the job did not train that baseline.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.cases import CASES, Place
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown
from clr.run import Direction
from clr.spec import JobSpec
from clr.trials.race import Entrant, Race, baseline_entrant

BUDGET, SEEDS, SEARCHES = 6.0, 20, 3

FIRST_SEARCH, FIRST_SEED = 101, 1001

NAMES = ("fixed", "one_cycle")


def verdicts(place: Place, name: str, search: int) -> dict[str, Any]:
    """What a job says of each baseline, and what it recommends; None without an answer."""
    from clr.tuning.in_process import drive, training_of
    from clr.tuning.session import Session

    case, task = CASES[name], CASES[name].load(place)
    spec = JobSpec(task="own", epochs=case.length.epochs, budget=BUDGET, seed=search)
    session = drive(task, Session(spec, training_of(task, case.length.epochs)), progress=False)
    race, found = session.race, session.recommendation
    if race is None or found is None or found.max_lr is None:
        return {"verdicts": {}}
    winner = race.winner or race.own
    known = {one.name: one for one in race.entrants if one.candidate is None and one.values}
    said = {
        one: {"verdict": _verdict(race, winner, known[one]), "differences": _differences(race, winner, known[one])}
        for one in NAMES
        if one in known
    }
    halves = [found.step_size_up, found.step_size_down]
    own = race.own.params["max_lr"]
    schedule = [found.policy, found.base_lr, found.max_lr, *halves]
    return {"verdicts": said, "run": schedule, "own": own, "floor": race.floor, "gain": race.gain}


def _verdict(race: Race, winner: Entrant, other: Entrant) -> str:
    lead = race.lead(winner, other)
    if lead is None:
        return "ahead" if other.mean is None and winner.mean is not None else "no difference"
    return "no difference" if not lead.counts else "ahead" if lead.difference > 0 else "behind"


def _differences(race: Race, winner: Entrant, other: Entrant) -> list[float | None]:
    shared = [(winner.values[seed], other.values[seed]) for seed in winner.values if seed in other.values]
    return [None if a is None or b is None else race.sign * (a - b) for a, b in shared]


def value(place: Place, name: str, baseline: str, lr: float, seed: int) -> float | None:
    """What a baseline reaches at a rate; None where it diverged."""
    from clr.training.loop import curve_of

    case = CASES[name]
    entrant = baseline_entrant(baseline, lr, case.length)
    return curve_of(case.load(place), entrant.make(seed)).value


def value_of_schedule(
    place: Place, name: str, policy: str, base_lr: float, max_lr: float, up: int, down: int, seed: int
) -> float | None:
    """What a recommended schedule reaches; None where it diverged."""
    from benchmarks.search import _run
    from clr.training.loop import curve_of

    case = CASES[name]
    return curve_of(case.load(place), _run(case, [policy, base_lr, max_lr, up, down], seed)).value


def compared(farm: Farm, name: str, search: int) -> dict[str, tuple[str | None, str]]:
    """By baseline: what the job said (None: nothing), and what twenty seeds say."""
    job = farm.start(verdicts, name, search).result()
    if "run" not in job:
        return {}
    seeds = range(FIRST_SEED, FIRST_SEED + SEEDS)
    started = {"ours": [farm.start(value_of_schedule, name, *job["run"], seed) for seed in seeds]} | {
        one: [farm.start(value, name, one, job["own"], seed) for seed in seeds] for one in NAMES
    }
    entrants = [
        Entrant(one, _never, {}, values=dict(zip(seeds, [future.result() for future in futures], strict=True)))
        for one, futures in started.items()
    ]
    direction: Direction = CASES[name].load().score[1]
    race = Race(entrants, direction, job["floor"])
    winner = entrants[0]
    return {
        one.name: (job["verdicts"].get(one.name, {}).get("verdict"), _verdict(race, winner, one))
        for one in entrants[1:]
    }


def _never(_seed: int) -> Any:
    raise AssertionError("it has been trained")


def measure(farm: Farm, names: Sequence[str], searches: int) -> str:
    """Every task; the table."""
    rows, total = [], Counter[str]()
    for name in names:
        with ThreadPoolExecutor(searches) as threads:
            found = list(threads.map(lambda search: compared(farm, name, search), _seeds(searches)))  # noqa: B023
        counts = Counter(_kind(*pair) for one in found for pair in one.values())
        farm.note(f"verdicts of {name}", {"counts": counts, "each": found})
        rows.append([name, *(str(counts[kind]) for kind in KINDS)])
        total += counts
    rows.append(["all", *(str(total[kind]) for kind in KINDS)])
    return markdown(["task", *KINDS], rows)


KINDS = ("agrees", "too careful", "too sure", "reversed", "missing")


def _kind(said: str | None, true: str) -> str:
    if said is None:
        return "missing"
    if said == true:
        return "agrees"
    if "no difference" not in (said, true):
        return "reversed"
    return "too careful" if said == "no difference" else "too sure"


def _seeds(searches: int) -> range:
    return range(FIRST_SEARCH, FIRST_SEARCH + searches)


def main() -> None:
    """Measure the tasks named on the command line."""
    parser = Command(__doc__)
    parser.add_argument("--searches", type=int, default=SEARCHES, help="jobs of each task")
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        print(measure(farm, chosen.tasks, chosen.searches))


if __name__ == "__main__":
    main()
