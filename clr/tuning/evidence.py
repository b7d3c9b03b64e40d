"""What a race's trainings say of the schedule that is recommended, and of those that were trained beside it."""

from typing import Any

from clr.trials.baselines import lines
from clr.trials.race import Entrant, Race, summary, verdict
from clr.tuning.orders import Training
from clr.tuning.recommendation import Evidence, of_each_group


def evidence_of(race: Race, training: Training, epochs: float) -> tuple[Evidence, list[str]]:
    """The trainings side by side, and warnings.

    Args:
        race: in which something was trained.
        training: what.
        epochs: length of each training in it.
    """
    winner, others = _winner_and_others(race)
    said, warnings = verdict(race, winner, [one for one in others if one.candidate is None])
    runs = [summary(winner, "recommended"), *(summary(one, _name(one, race)) for one in others)]
    seeds = max(len(one.values) for one in race.entrants)
    return Evidence(training.metric, training.direction, epochs, seeds, runs, said), warnings


def alternatives_of(race: Race, training: Training) -> list[dict[str, Any]]:
    """The baselines that were trained, with their lines: those that clearly did better first, then the best.

    Args:
        race: in which something was trained.
        training: what.
    """
    winner, others = _winner_and_others(race)
    baselines = [one for one in others if one.lr is not None and one.mean is not None]
    baselines.sort(key=lambda one: (not _is_ahead(race, one, winner), -race.sign * (one.mean or 0.0)))
    return [{"name": one.name, "lr": one.lr, "mean": one.mean, "python": _lines(one, training)} for one in baselines]


def _lines(one: Entrant, training: Training) -> str:
    return lines(one.name, of_each_group(one.lr, training.optimizer) or 0.0, training.length.steps)


def _winner_and_others(race: Race) -> tuple[Entrant, list[Entrant]]:
    winner = race.winner or race.own
    return winner, [one for one in race.entrants if one is not winner and one.values]


def _is_ahead(race: Race, one: Entrant, winner: Entrant) -> bool:
    lead = race.lead(one, winner)
    return lead is not None and lead.counts and lead.difference > 0


def _name(one: Entrant, race: Race) -> str:
    return "range_test" if one is race.own else one.name
