import inspect
import json
import math
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError

from clr.errors import InvalidArgument
from clr.schedules.policies import CYCLIC
from clr.spec import Adam, Baseline, CyclicPolicy, JobSpec, OptimizerSpec, OtherOptimizer, SearchSpec
from clr.training.task import optimizer
from clr.trials.baselines import BASELINES

DESCRIBED = [kind for kind in get_args(get_args(OptimizerSpec)[0]) if kind is not OtherOptimizer]
"""Optimizers whose arguments the spec itself checks."""
OTHERS: dict[str, dict[str, Any]] = {
    "ASGD": {"alpha": 0.5},
    "Adadelta": {"rho": 0.8},
    "Adafactor": {"beta2_decay": -0.7},
    "Adamax": {"betas": [0.8, 0.99]},
    "Muon": {"momentum": 0.9, "nesterov": False},
    "Rprop": {"etas": [0.4, 1.1]},
    "SparseAdam": {"eps": 1e-6},
}
"""The others, each with arguments of its own."""
OPTIMIZERS = [{"name": kind.__name__} for kind in DESCRIBED]
OPTIMIZERS += [{"name": name, "args": args} for name, args in OTHERS.items()]

EXTERNAL = {"mode": "external", "task": "mine", "epochs": 5, "iterations_per_epoch": 9, "direction": "minimize"}
COMMAND = {"mode": "command", "command": ["train"], "epochs": 5, "iterations_per_epoch": 9, "direction": "maximize"}

WHOLE: dict[str, Any] = {
    "mode": "managed",
    "name": "digits demo",
    "task": "digits",
    "args": {"hidden": 64},
    "code": None,
    "command": None,
    "optimizer": None,
    "batch_size": None,
    "epochs": 20,
    "iterations_per_epoch": None,
    "direction": None,
    "seed": 0,
    "budget": None,
    "range_test": {"min_lr": None, "max_lr": None, "seeds": 3, "epochs": None},
    "search": {
        "trials": None,
        "ratio": [1.5, 20],
        "stepsize_multiplier": [1, 10],
        "rise": [0.05, 0.5],
        "policies": ["triangular"],
        "epochs": None,
        "warm_start": False,
    },
    "confirm": {"seeds": None, "baselines": None},
    "resources": {"gpus": None, "cpus": 1},
    "limits": {"max_steps": None, "max_seconds": None, "run_seconds": None},
    "priority": 0,
}
SAID: dict[str, Any] = {
    "optimizer": {
        "name": "SGD",
        "args": {"momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
    },
    "batch_size": 64,
    "budget": 40,
    "search": WHOLE["search"] | {"trials": 20},
    "confirm": {"seeds": 3, "baselines": ["fixed", "one_cycle", "cosine"]},
    "resources": {"gpus": 0, "cpus": 1},
    "limits": {"max_steps": 10, "max_seconds": 20, "run_seconds": 30},
}
"""What WHOLE leaves to the task or to the planner."""


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"task": "digits"} with ``value`` at the dotted path."""
    *parents, last = path.split(".")
    spec: dict[str, Any] = {"task": "digits"}
    inner = spec
    for parent in parents:
        inner = inner.setdefault(parent, {"name": "SGD"} if parent == "optimizer" else {})
    inner[last] = value
    return spec


def errors_of(spec: dict[str, Any]) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(spec)
    return caught.value.errors()


def test_only_the_task_is_required_and_the_rest_are_the_contracts_defaults() -> None:
    assert JobSpec.model_validate({"task": "digits", "args": {"hidden": 64}, "name": "digits demo"}).model_dump(
        mode="json"
    ) == json.loads(json.dumps(WHOLE))
    assert errors_of({})[0]["loc"] == ("task",)


@pytest.mark.parametrize(
    "spec",
    [
        {"task": "digits"},
        WHOLE,
        WHOLE | SAID,
        EXTERNAL,
        EXTERNAL | SAID,
        COMMAND,
        COMMAND | SAID,
        {"task": "my.module:task", "search": None, "confirm": None},
        {"task": "digits", "epochs": 1e-6},
        {"task": "digits", "epochs": 100_000},
        {"task": "digits", "epochs": 50, "search": {"epochs": 0.3, "policies": ["welch", "exp_range"]}},
        *({"task": "digits", "optimizer": one} for one in OPTIMIZERS),
    ],
)
def test_a_normalised_spec_survives_json_and_validates_to_itself(spec: dict[str, Any]) -> None:
    normal = JobSpec.model_validate(spec)
    document = normal.model_dump(mode="json")
    text = json.dumps(document, allow_nan=False)
    assert JobSpec.model_validate(json.loads(text)) == JobSpec.model_validate_json(text) == normal
    assert JobSpec.model_validate(json.loads(text)).model_dump(mode="json") == document


@pytest.mark.parametrize("start", [WHOLE, EXTERNAL, COMMAND], ids=lambda start: start["mode"])
def test_what_is_said_is_kept(start: dict[str, Any]) -> None:
    document = JobSpec.model_validate(start | SAID).model_dump(mode="json")
    assert {name: document[name] for name in SAID} == SAID


NULLABLE = [
    *("optimizer", "batch_size", "budget", "search", "search.trials", "search.stepsize_multiplier", "search.epochs"),
    *("confirm", "confirm.seeds", "confirm.baselines", "resources.gpus", "limits.run_seconds"),
    *("iterations_per_epoch", "direction", "command", "code"),
]


@pytest.mark.parametrize("field", NULLABLE)
def test_what_may_be_left_to_the_task_or_the_planner_may_be_null(field: str) -> None:
    assert JobSpec.model_validate(nested(field, None))


def test_the_name_is_the_tasks_unless_given() -> None:
    assert JobSpec(task="digits").name == JobSpec(task="digits", name="").name == "digits"
    assert JobSpec(task="digits", name="mine").name == "mine"


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        JobSpec(task="digits").epochs = 3  # type: ignore[misc]


PARTS = ("", "optimizer.", "optimizer.args.", "range_test.", "search.", "confirm.", "resources.", "limits.")


@pytest.mark.parametrize("part", PARTS)
def test_an_unknown_field_is_an_error_that_names_it(part: str) -> None:
    (error,) = errors_of(nested(f"{part}learning_rate", 0.1))
    assert (error["type"], error["loc"][-1], error["input"]) == ("extra_forbidden", "learning_rate", 0.1)


NUMBERS = [
    *("epochs", "batch_size", "seed", "priority", "range_test.min_lr", "range_test.max_lr", "range_test.seeds"),
    *("range_test.epochs", "search.trials", "search.epochs", "confirm.seeds", "resources.gpus", "resources.cpus"),
    *("limits.max_steps", "limits.max_seconds", "limits.run_seconds", "budget", "iterations_per_epoch"),
    *("optimizer.args.momentum", "optimizer.args.weight_decay"),
]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [True, "1", math.nan, math.inf, -math.inf, -1e9, [], {}], ids=repr)
def test_a_number_is_neither_bool_nor_text_nor_infinite_nor_far_below_zero(field: str, value: Any) -> None:
    (error,) = errors_of(nested(field, value))
    assert error["loc"][0] == field.split(".")[0]
    assert error["loc"][-1] == field.split(".")[-1]


OUTSIDE: dict[str, list[Any]] = {
    "epochs search.epochs range_test.epochs": [0, 5e-324, 100_001],
    "batch_size": [0, 64.0, 1_000_001],
    "iterations_per_epoch": [0, 64.0, 10**9 + 1],
    "budget": [0, 1_000_001],
    "direction": ["up", True],
    "command": [[], "train", [3], ["a\0b"]],
    "seed": [-1, 0.5, 2**31],
    "priority": [-101, 101],
    "range_test.seeds confirm.seeds": [0, 21],
    "range_test.min_lr range_test.max_lr limits.max_seconds limits.max_steps limits.run_seconds": [0],
    "search.trials": [0, 10_001],
    "search.ratio": [[1, 4], [1.5, 1001], [2], [2, 3, 4], [2, "3"], [True, 3], 4, None, {"low": 2}],
    "search.ratio search.stepsize_multiplier": [[math.nan, 4], [2, math.inf]],
    "search.stepsize_multiplier": [[0, 1], [-1, 1], [5e-324, 1], ["1", 2]],
    "search.rise": [[-0.1, 0.5], [0.5, 1], [0.5], [0.1, "0.5"], 0.3, None],
    "search.policies": [[], ["fixed"], ["sawtooth"], "triangular", None],
    "confirm.baselines": [["triangular"], "fixed"],
    "optimizer.args.momentum": [-0.1, 1],
    "resources.gpus": [-1, 65],
    "resources.cpus": [0, 1025],
    "task": ["", "a b", "a:b:c", "a:", "a\n", "x" * 201, None, 3],
    "name": ["x" * 201, None, 3],
    "args": [None, [], "hidden=3"],
    "mode": ["remote", None],
    "code": ["abc"],
    "range_test resources limits": ["yes", None],
    "search confirm optimizer": ["yes"],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for fields, values in OUTSIDE.items() for field in fields.split() for value in values],
    ids=repr,
)
def test_a_value_outside_its_range_is_an_error_that_names_the_field(field: str, value: Any) -> None:
    for error in errors_of(nested(field, value)):
        path = [str(part) for part in error["loc"] if part != "SGD"]
        assert ".".join(path).startswith(field)


@pytest.mark.parametrize("start", [EXTERNAL, COMMAND], ids=lambda start: start["mode"])
def test_the_task_of_anothers_program_is_any_label(start: dict[str, Any]) -> None:
    spec = JobSpec.model_validate(start | {"task": "my JAX model: v2"})
    assert spec.task == spec.name == "my JAX model: v2"
    document = spec.model_dump(mode="json")
    assert JobSpec.model_validate(document).model_dump(mode="json") == document


@pytest.mark.parametrize(
    ("start", "field"),
    [
        *((EXTERNAL, field) for field in ("epochs", "iterations_per_epoch", "direction")),
        *((COMMAND, field) for field in ("epochs", "iterations_per_epoch", "direction", "command")),
    ],
)
def test_what_only_a_task_knows_itself_is_required_of_anothers_program(start: dict[str, Any], field: str) -> None:
    (error,) = errors_of({name: value for name, value in start.items() if name != field})
    assert error["ctx"]["field"] == field
    assert f"is required for {'an external' if start is EXTERNAL else 'a command'} job" in error["msg"]


@pytest.mark.parametrize("field", ["iterations_per_epoch", "direction", "command"])
def test_a_task_is_not_told_what_it_knows_itself(field: str) -> None:
    (error,) = errors_of({"task": "digits", field: COMMAND[field]})
    assert error["ctx"]["field"] == field
    assert "must be null for a managed job" in error["msg"]


def test_an_external_job_has_no_command_and_must_be_named() -> None:
    (error,) = errors_of(EXTERNAL | {"command": ["train"]})
    assert (error["ctx"]["field"], "must be null for an external job" in error["msg"]) == ("command", True)
    assert errors_of({name: value for name, value in EXTERNAL.items() if name != "task"})[0]["loc"] == ("task",)


@pytest.mark.parametrize(
    ("command", "task"),
    [
        (["python", "src/train.py", "--data", "a.csv"], "train.py"),
        (["/opt/bin/train", "-v"], "train"),
        (["!"], "command"),
    ],
)
def test_a_command_is_called_after_its_script_or_program(command: list[str], task: str) -> None:
    spec = JobSpec.model_validate(COMMAND | {"command": command})
    assert (spec.command, spec.task, spec.name) == (command, task, task)


@pytest.mark.parametrize("start", [EXTERNAL, COMMAND], ids=lambda start: start["mode"])
def test_anothers_program_may_have_a_confirmation(start: dict[str, Any]) -> None:
    assert JobSpec.model_validate(start | {"confirm": None}).confirm is None
    confirm = JobSpec.model_validate(start | {"confirm": {"seeds": 3}}).confirm
    assert confirm is not None
    assert (confirm.seeds, confirm.baselines) == (3, None)


def test_arguments_of_a_task_are_json_values_and_finite() -> None:
    assert JobSpec(task="digits", args={"a": [1, {"b": None}], "c": "x"}).args == {"a": [1, {"b": None}], "c": "x"}
    assert errors_of(nested("args.hidden", math.nan))[0]["loc"][:2] == ("args", "hidden")


@pytest.mark.parametrize("field", ["search.ratio", "search.stepsize_multiplier"])
def test_a_range_that_descends_is_an_empty_search_space(field: str) -> None:
    (error,) = errors_of(nested(field, [4, 3]))
    assert error["loc"] == tuple(field.split("."))
    assert "low <= high must hold" in error["msg"]
    assert "empty" in error["msg"]


def test_a_range_may_be_a_single_value() -> None:
    search = JobSpec.model_validate(nested("search", {"ratio": [4, 4], "stepsize_multiplier": [2, 2]})).search
    assert search is not None
    assert (search.ratio, search.stepsize_multiplier) == ((4, 4), (2, 2))


def test_multipliers_that_no_number_of_cycles_meets_are_an_empty_search_space() -> None:
    (error,) = errors_of(nested("search.stepsize_multiplier", [6, 9]))
    assert error["type"] == "empty_search_space"
    assert error["ctx"]["field"] == "search.stepsize_multiplier"
    assert "20 / (2 k) in [6.0, 9.0]" in error["msg"]


def test_the_length_of_a_trial_decides_which_multipliers_there_are() -> None:
    spec = nested("search", {"stepsize_multiplier": [6, 9], "epochs": 14})
    assert JobSpec.model_validate(spec).search is not None
    assert JobSpec(task="digits", epochs=0.5).search.stepsize_multiplier == (0.25, 10)  # type: ignore[union-attr]
    assert JobSpec(task="digits", epochs=50).search.stepsize_multiplier == (1, 25)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("field", "values"), [("search.policies", ["welch", "hann", "welch"]), ("confirm.baselines", ["fixed", "fixed"])]
)
def test_duplicates_are_an_error(field: str, values: list[str]) -> None:
    (error,) = errors_of(nested(field, values))
    assert error["loc"] == tuple(field.split("."))
    assert "items must be unique" in error["msg"]


@pytest.mark.parametrize(("field", "value"), [("seeds", 3), ("baselines", ["fixed"])])
def test_a_range_test_alone_has_no_comparison(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match="a range test alone compares nothing"):
        JobSpec.model_validate({"task": "digits", "search": None, "confirm": {field: value}})


def test_a_confirmation_may_do_without_baselines() -> None:
    assert JobSpec.model_validate(nested("confirm.baselines", [])).confirm is not None


def test_the_lowest_rate_of_a_ramp_lies_below_its_highest() -> None:
    for low, high in ((0.1, 0.1), (1, 0.1)):
        (error,) = errors_of(nested("range_test", {"min_lr": low, "max_lr": high}))
        assert error["loc"] == ("range_test",)
        assert "min_lr < max_lr must hold" in error["msg"]


@pytest.mark.parametrize(
    ("resources", "rule"),
    [
        ({"gpus": 1.5}, "gpus must be a whole number where it is above 1"),
        ({"cpus": 2.25}, "cpus must be a whole number where it is above 1"),
        ({"gpus": 1e-9}, "gpus must be 0 or at least 0.001"),
        ({"cpus": 1e-320}, "cpus must be 0 or at least 0.001"),
    ],
)
def test_a_run_occupies_a_share_of_a_device_or_whole_ones(resources: dict[str, float], rule: str) -> None:
    (error,) = errors_of(nested("resources", resources))
    assert error["loc"] == ("resources",)
    assert rule in error["msg"]


@pytest.mark.parametrize("resources", [{"gpus": 0.25}, {"gpus": 2, "cpus": 4}, {"cpus": 0.001}, {"cpus": 3.0}])
def test_shares_and_whole_devices_are_accepted(resources: dict[str, float]) -> None:
    assert JobSpec.model_validate(nested("resources", resources))


def test_the_policies_and_baselines_of_a_spec_are_the_methods() -> None:
    assert get_args(CyclicPolicy) == CYCLIC
    assert get_args(Baseline) == tuple(BASELINES)
    assert SearchSpec().policies == ["triangular"]


@pytest.mark.parametrize("kind", DESCRIBED)
def test_the_arguments_of_an_optimizer_are_torchs_with_torchs_defaults(kind: Any) -> None:
    name = kind.__name__
    signature = inspect.signature(getattr(torch.optim, name)).parameters
    args = kind(name=name).args.model_dump()
    expected = {argument: signature[argument].default for argument in args}
    if name == "SGD":
        expected["momentum"] = 0.9
    assert args == expected


@pytest.mark.parametrize("given", OPTIMIZERS, ids=lambda given: given["name"])
def test_torch_makes_the_optimizer_that_a_stored_spec_names(given: dict[str, Any]) -> None:
    name = given["name"]
    spec = JobSpec.model_validate({"task": "digits", "optimizer": given}).model_dump(mode="json")["optimizer"]
    assert spec["args"].items() >= given.get("args", {}).items()
    made = optimizer(spec["name"], **spec["args"])([torch.nn.Parameter(torch.ones(2, 2))])
    gradient = torch.ones(2, 2)
    made.param_groups[0]["params"][0].grad = gradient.to_sparse() if name == "SparseAdam" else gradient
    made.step()
    assert type(made) is getattr(torch.optim, name)
    for argument, value in spec["args"].items():
        taken = made.param_groups[0][argument]
        assert (list(taken) if isinstance(taken, tuple) else taken) == value


def test_the_learning_rate_is_no_argument_of_an_optimizer() -> None:
    assert errors_of(nested("optimizer.args.lr", 0.1))[0]["type"] == "extra_forbidden"


def test_the_arguments_of_other_optimizers_are_checked_where_they_are_made() -> None:
    assert get_args(OtherOptimizer.model_fields["name"].annotation) == tuple(OTHERS)
    for args, field in (({"colour": 3}, "args.colour"), ({"lr": 0.1}, "args.lr"), ({"betas": [2, 2]}, "args")):
        spec = JobSpec.model_validate({"task": "digits", "optimizer": {"name": "Adamax", "args": args}})
        assert spec.optimizer == OtherOptimizer(name="Adamax", args=args)
        with pytest.raises(InvalidArgument, match=f"optimizer.{field}"):
            optimizer("Adamax", **args)


def test_an_optimizer_that_is_not_offered_is_an_error_that_lists_those_that_are() -> None:
    (error,) = errors_of({"task": "digits", "optimizer": {"name": "Lion"}})
    assert error["loc"] == ("optimizer",)
    assert all(f"'{one['name']}'" in error["msg"] for one in OPTIMIZERS)


def test_one_optimizers_argument_is_no_others() -> None:
    error = errors_of({"task": "digits", "optimizer": {"name": "Adam", "args": {"momentum": 0.9}}})[0]
    assert (error["type"], error["loc"]) == ("extra_forbidden", ("optimizer", "Adam", "args", "momentum"))


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [-0.1, 0.9], ["0.9", 0.99], [True, 0.9], 0.9])
def test_betas_are_two_numbers_from_zero_to_below_one(betas: Any) -> None:
    for error in errors_of({"task": "digits", "optimizer": {"name": "Adam", "args": {"betas": betas}}}):
        assert error["loc"][:4] == ("optimizer", "Adam", "args", "betas")
    assert Adam(name="Adam").args.betas == (0.9, 0.999)


@pytest.mark.parametrize("args", [{"momentum": 0.0}, {"dampening": 0.5}])
def test_nesterov_needs_momentum_without_dampening_as_torch_does(args: dict[str, float]) -> None:
    (error,) = errors_of(nested("optimizer.args", {"nesterov": True} | args))
    assert "nesterov needs momentum > 0 and dampening = 0" in error["msg"]
    with pytest.raises(ValueError, match="Nesterov"):
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], nesterov=True, **({"momentum": 0.9} | args))  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [EXTERNAL, COMMAND], ids=lambda start: start["mode"])
def test_anothers_program_is_compared_with_schedules_alone(start: dict[str, Any]) -> None:
    confirm = JobSpec.model_validate(start | {"confirm": {"baselines": ["cosine"]}}).confirm
    assert confirm is not None
    assert confirm.baselines == ["cosine"]
    (error,) = errors_of(start | {"confirm": {"baselines": ["cosine", "prodigy"]}})
    assert error["ctx"]["field"] == "confirm.baselines"
