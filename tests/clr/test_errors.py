import pickle

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from clr.bundles.archive import InvalidBundle
from clr.errors import SHOWN, ClrError, InvalidArgument, InvalidArguments, broken_rules
from clr.spec import JobSpec, RangeTestSpec, checked


def test_the_message_is_made_of_the_fields() -> None:
    assert (
        str(InvalidArgument("search.trials", "must be at least 1", 0)) == "search.trials: must be at least 1, but got 0"
    )
    assert str(InvalidArgument("curve", "must have a row")) == "curve: must have a row"
    assert str(InvalidArgument("gamma", "must be in (0, 1]", None)).endswith("but got None")


def test_several_errors_are_a_list_and_the_first_one_speaks_for_them() -> None:
    first, second = InvalidArgument("a", "must be 1", 2), InvalidArgument("b", "is required")
    both = InvalidArguments([first, second])
    assert (both.errors, both.field, both.rule, both.value) == ([first, second], "a", "must be 1", 2)
    assert str(both) == "a: must be 1, but got 2; b: is required"
    assert first.errors == [first]


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("a", "must be 1", 2),
        InvalidArgument("a", "is required"),
        InvalidBundle("must be a zip file", "x"),
        InvalidArguments([InvalidArgument("a", "must be 1", 2), InvalidArgument("b", "is required")]),
    ],
)
def test_an_error_crosses_processes_whole(error: InvalidArgument) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.field, again.value) == (type(error), str(error), error.field, error.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.ones((2, 3)), "a ndarray of shape [2, 3]"),
        (torch.zeros(()), "a Tensor of shape []"),
        (torch.nn.Linear, "torch.nn.modules.linear.Linear"),
        (torch.nn.Linear(1, 1), "a torch.nn.modules.linear.Linear"),
        ([1.5, "x"], "[1.5, 'x']"),
        ((torch.ones(2), None), "(a Tensor of shape [2], None)"),
        ({"x": [torch.nn.Linear(1, 1)]}, "{'x': [a torch.nn.modules.linear.Linear]}"),
    ],
)
def test_a_value_is_shown_for_what_it_is(value: object, shown: str) -> None:
    error = InvalidArgument("a", "must be 1", value)
    assert str(error) == f"a: must be 1, but got {shown}"
    assert error.value is value


def test_a_long_value_is_cut_in_the_message_alone_and_stays_on_one_line() -> None:
    error = InvalidArgument("a", "must be 1", [torch.ones(3, 3)] * 1000)
    assert len(str(error)) < SHOWN + 50
    assert "\n" not in str(error)
    assert len(error.value) == 1000


def test_what_pydantic_found_has_the_field_as_its_writer_knows_it() -> None:
    document = {"optimizer": {"name": "SGD", "args": {"momentum": 2}}, "search": {"stepsize_multiplier": [9, 9]}}
    with pytest.raises(ValidationError) as found:
        JobSpec.model_validate(document)
    errors = broken_rules(found.value.errors(), document).errors
    assert [(one.field, one.value) for one in errors] == [("task", None), ("optimizer.args.momentum", 2)]
    assert str(errors[0]).startswith("task: is required")
    assert "but got" not in str(errors[0])


def test_a_rule_of_several_fields_names_the_one_at_fault_and_what_was_given() -> None:
    document = {"task": "digits", "search": {"stepsize_multiplier": [9, 9]}}
    with pytest.raises(ValidationError) as found:
        JobSpec.model_validate(document)
    (error,) = broken_rules(found.value.errors(), document).errors
    assert (error.field, error.value) == ("search.stepsize_multiplier", [9, 9])


def test_plain_values_are_checked_all_at_once() -> None:
    with pytest.raises(InvalidArguments) as refused:
        checked(RangeTestSpec, seeds=0, epochs=-1, colour="red")
    assert [one.field for one in refused.value.errors] == ["seeds", "epochs", "colour"]
    assert issubclass(InvalidArguments, ClrError)
