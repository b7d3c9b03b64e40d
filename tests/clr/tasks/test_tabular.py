"""Tables in CSV files: scikit-learn's wines and diabetes patients, and small ones with odd cells."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_wine

from clr.errors import DataMissing, InvalidArgument
from clr.run import Run
from clr.tasks import load_task
from clr.tasks.split import split
from clr.training.loop import curve_of
from clr.training.task import Task


def make(file: Path, target: str = "target", **args: Any) -> Task:
    return replace(load_task("tabular", data=str(file), target=target, **args), device="cpu", batch_size=16)


def written(folder: Path, dataset: Any) -> Path:
    data = dataset()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*data.feature_names, "target"])
        writer.writerows([*row, target] for row, target in zip(data.data, data.target, strict=True))
    return folder / "table.csv"


def text(folder: Path, content: str) -> Path:
    (folder / "table.csv").write_text(content)
    return folder / "table.csv"


def trained(task: Task) -> float:
    run = Run(policy="triangular", base_lr=0.005, max_lr=0.05, step_size_up=60, steps=120, seed=0, evaluate_every=120)
    value = curve_of(task, run).value
    assert value is not None
    return value


def test_wines_are_told_apart(tmp_path: Path) -> None:
    task = make(written(tmp_path, load_wine))
    assert task.score[:2] == ("accuracy", "maximize")
    assert task.model()[-1].out_features == 3
    assert trained(task) > 0.9


def test_the_course_of_diabetes_is_told_better_than_by_the_mean(tmp_path: Path) -> None:
    task = make(written(tmp_path, load_diabetes), hidden=[16])
    assert task.score[:2] == ("loss", "minimize")
    assert trained(task) < 0.75


def test_inputs_and_a_number_to_predict_are_standardised_on_the_training_rows_alone(tmp_path: Path) -> None:
    data = load_diabetes()
    train, val = split(len(data.target), 0.2)
    task = make(written(tmp_path, load_diabetes))
    x, y = data.data, data.target
    expected = (x - x[train].mean(0)) / x[train].std(0)
    assert np.allclose(task.train[0], expected[train], atol=1e-4)
    assert np.allclose(task.val[0], expected[val], atol=1e-4)
    assert np.allclose(task.val[1], (y[val] - y[train].mean()) / y[train].std(), atol=1e-4)
    assert task.val[0].mean().abs() > 1e-3, "not on its own mean"


ODD = "id;size;colour;weight\n" + "".join(f"n{i};{i or ''};{'red' if i % 2 else 'blue'};{i + 0.5}\n" for i in range(10))


def test_text_becomes_categories_and_an_empty_cell_the_mean(tmp_path: Path) -> None:
    task = make(text(tmp_path, ODD), "weight", ignore=["id"], val_share=0.3)
    rows = torch.cat([task.train[0], task.val[0]])
    assert rows.shape == (10, 3)
    assert rows[:, 1:].sum(1).tolist() == [1.0] * 10
    order = [int(i) for part in split(10, 0.3) for i in part]
    assert rows[order.index(0), 0] == 0
    assert rows[order.index(3), 1:].tolist() == [0.0, 1.0], "blue, red"


def test_a_category_that_only_validation_has_is_none_of_the_known(tmp_path: Path) -> None:
    _, val = split(5, 0.2)
    lines = [f"{'rare' if i == val[0] else 'common'},{i % 2}\n" for i in range(5)]
    task = make(text(tmp_path, "a,b\n" + "".join(lines)), "b")
    assert task.val[0].tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("kind", "metric"), [(None, "accuracy"), ("classification", "accuracy"), ("regression", "loss")]
)
def test_few_whole_numbers_are_classes_unless_told_otherwise(kind: str | None, metric: str, tmp_path: Path) -> None:
    file = text(tmp_path, "a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(30)))
    assert make(file, "b", kind=kind).score[0] == metric


@pytest.mark.parametrize(
    ("content", "args", "says"),
    [
        (
            "a,b\n1,2\n",
            {"target": "c"},
            r"args\.target: must name columns of .*, which has 2, but got 'c'",
        ),
        ("a,b\n1,2\n", {"target": "b", "ignore": ["c"]}, r"args\.ignore: must name columns of .*, but got 'c'"),
        ("a,b\n1,2\n", {"target": "b", "ignore": ["a"]}, r"args\.ignore: must leave a column besides the target"),
        ("a,b\n1,2\n", {"target": "b"}, r"args\.data: must hold at least two examples.*but got 1"),
        ("a,a\n1,2\n", {"target": "a"}, r"args\.data: must begin with a header of unique names"),
        ("", {"target": "a"}, r"args\.data: must begin with a header"),
        ("a,b\n1,2\n3\n", {"target": "b"}, r"args\.data: must have 2 cells a row, also in row 3, but got 1"),
        ("a,b\n1,2\n3,\n", {"target": "b"}, r"args\.target: must have no empty cell, also in row 3, but got ''"),
        (
            "a,b\n1,x\n3,4\n",
            {"target": "b", "kind": "regression"},
            r"args\.target: must be .* finite numbers.* row 2$",
        ),
        ("a,b\n1,2\n3,4\n", {"target": "b", "hidden": [0]}, r"args\.hidden\.0: .*greater than or equal to 1"),
        ("a,b\n1,2\n3,4\n", {"target": "b", "kind": "rank"}, r"args\.kind: .*'classification' or 'regression'"),
    ],
)
def test_a_broken_rule_is_named(content: str, args: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=says):
        make(text(tmp_path, content), **args)


def test_a_column_of_names_is_not_taken_for_categories(tmp_path: Path) -> None:
    file = text(tmp_path, "name,b\n" + "".join(f"n{i},{i % 2}\n" for i in range(2000)))
    with pytest.raises(InvalidArgument, match=r"args\.ignore: must name number 1 of the inputs too: .* has 1600"):
        make(file, "b")


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"args\.data: .*nowhere: No such file"):
        make(tmp_path / "nowhere")
    (tmp_path / "raw").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgument, match=r"args\.data: must be a CSV file in UTF-8"):
        make(tmp_path / "raw")
