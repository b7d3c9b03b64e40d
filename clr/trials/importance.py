"""Which parameters of a search its trials' values depend on, as Optuna computes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from clr.run import Direction

PARAMETERS = ("max_lr", "ratio", "stepsize_multiplier", "rise", "policy")
"""Those that a search may draw."""

FEWEST = 4
"""Trials below which nothing can be told."""


def importances(trials: Sequence[Mapping[str, Any]], direction: Direction) -> dict[str, float]:
    """The share that each parameter has in how much the values differ (functional ANOVA), the largest first.

    Args:
        trials: each with its parameters, some of ``PARAMETERS``, and its ``value``; those without one are left out.
        direction: of the value.

    Returns:
        Shares that sum to 1 by parameter, those left out that no trial differs in; empty where the trials are too few,
        or their values all the same.
    """
    scored = [trial for trial in trials if trial.get("value") is not None]
    names = [name for name in PARAMETERS if len({trial.get(name) for trial in scored} - {None}) > 1]
    scored = [trial for trial in scored if all(trial.get(name) is not None for name in names)]
    if len(scored) < FEWEST or not names or len({trial["value"] for trial in scored}) < 2:
        return {}
    space = {name: _range([trial[name] for trial in scored]) for name in names}
    study = optuna.create_study(direction=direction)
    for trial in scored:
        drawn = {name: trial[name] for name in names}
        study.add_trial(create_trial(params=drawn, distributions=space, value=trial["value"]))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


def _range(values: Sequence[Any]) -> BaseDistribution:
    if isinstance(values[0], str):
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(min(values), max(values), log=min(values) > 0)
