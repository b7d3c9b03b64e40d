import gzip
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clr.errors import InvalidArgument
from clr.range_tests import curve_table
from clr.range_tests.curve_file import CurveFile, Picked, read_curve_file, recordings_of
from clr.range_tests.recorded import read_recordings

EVENTS = Path(__file__).parent / "data" / "range_test.tfevents"


def read(text: str, **picked: str) -> CurveFile:
    return read_curve_file(text.encode(), Picked(**picked))


def values(text: str, **picked: str) -> tuple[list[float], list[float]]:
    (recording,) = read(text, **picked).recordings
    return recording.lr, recording.loss


def test_a_file_of_our_own_is_read_without_a_word() -> None:
    file = read("lr,loss\n0.1,2.5\n0.2,1e3\n")
    (recording,) = file.recordings
    assert (recording.lr, recording.loss, file.notes) == ([0.1, 0.2], [2.5, 1000.0], [])
    assert recording.measured == 0


def test_rows_are_sorted_to_their_seeds_whatever_the_order_of_columns() -> None:
    file = read("seed,loss,lr,metric\n7,1,.1,\n3,2,.2,.5\n7,nan,.3,.6")
    first, second = file.recordings
    assert (first.lr, second.lr, file.notes) == ([0.1, 0.3], [0.2], [])
    assert math.isnan(first.loss[1])
    assert math.isnan(first.metric[0])
    assert (first.metric[1], second.metric) == (0.6, [0.5])


@pytest.mark.parametrize(
    "text",
    [
        "epoch,accuracy,loss,learning_rate,val_loss\n0,.1,2,.1,9\n1,.2,1,.2,8\n",  # Keras' CSVLogger
        ",lr,loss\n0,0.1,2\n1,0.2,1\n",  # pandas with its index
        "Unnamed: 0,lr,loss\n0,0.1,2\n1,0.2,1\n",
        "lr loss\n1 0.1 2\n2 0.2 1\n",  # an index that has no name
        '"Step","big run - train/lr","big run - train/loss","big run - train/loss__MIN"\n0,0.1,2,9\n1,0.2,1,9\n',  # W&B
        "lr;loss\n0,1;2\n0,2;1,0\n",  # a comma for the point
        "lr\tloss\n0.1\t2\n0.2\t1\n",
        "lr | loss\n 0.1 | 2 \n 0.2 | 1 \n",
        "# lr loss\n0.1 2\n0.2 1\n",  # numpy.savetxt with a header
        "\ufeffLR, Loss\r\n0.1, 2\r\n\r\n0.2, 1\r\n",
        "lr-SGD/pg1,train_loss_step,train_loss_epoch\n0.1,2,\n0.2,1,1.5\n",
        "epoch,lr-SGD,step,train_loss\n,0.1,0,\n0,,0,2\n,0.2,1,\n0,,1,1\n",  # Lightning's, the rate in its own row
        '{"lr": [0.1, 0.2], "loss": [2, 1]}',  # torch-lr-finder's history, Lightning's results
        '{"history": {"loss": [2, 1], "learning_rate": [0.1, 0.2], "val_accuracy": [0.1, 0.2]}, "best": 1}',
        '{"lr": {"0": 0.1, "1": 0.2}, "loss": {"0": 2, "1": 1}}',  # pandas
        '[{"lr": 0.1, "loss": 2}, {"lr": 0.2, "loss": 1}]',
        '{"lr": [[0.1], [0.2]], "loss": [2, 1]}',  # ignite: one rate for each group
        '{"log_history": [{"learning_rate": 0.1, "loss": 2, "step": 1}, {"learning_rate": 0.2, "loss": 1, "step": 2}]}',
        '{"lr": 0.1, "loss": 2}\n{"lr": 0.2, "loss": 1}\n',
        '{"env_info": "", "seed": 0}\n{"lr": 0.1, "loss": 2}\n{"lr": 0.2, "loss": 1}\n',  # OpenMMLab's
        '{"columns": ["lr", "loss"], "index": [0, 1], "data": [[0.1, 2], [0.2, 1]]}',  # pandas' other orientations
        '{"a": {"lr": 0.1, "loss": 2}, "b": {"lr": 0.2, "loss": 1}}',
        '{"schema": {"fields": [{"name": "lr", "type": "number"}]}, "data": [{"lr": 0.1, "loss": 2}, '
        '{"lr": 0.2, "loss": 1}]}',
        "sep=;\nlr;loss\n0,1;2\n0,2;1\n",  # Excel's word on the delimiter
        "# made by hand\n# on a rainy day\nlr,loss\n0.1,2\n0.2,1\n",
        "epoch,trainLoss,valLoss,learningRate\n0,2,9,.1\n1,1,8,.2\n",
        "x/lr,  train/loss\n.1, 2\n.2, 1\n",
        "charts/learning_rate,losses/total\n.1, 2\n.2, 1\n",
        "current_lr,loss,log_lr\n.1, 2, -1\n.2, 1, -0.7\n",
        "lr/pg0,lr/pg1,lr/pg2,loss\n.1,.1,.01,2\n.2,.2,.02,1\n",  # groups: the largest
        '{"lr": [[0.01, 0.1], [0.02, 0.2]], "loss": [2, 1]}',
    ],
)
def test_files_that_others_write_are_read(text: str) -> None:
    assert values(text) == ([0.1, 0.2], [2.0, 1.0])


def test_a_file_of_excel_is_read() -> None:
    (recording,) = read_curve_file("lr\tloss\r\n0,1\t2\r\n".encode("utf-16")).recordings
    assert (recording.lr, recording.loss) == ([0.1], [2.0])


def test_what_was_read_and_what_was_not_is_said() -> None:
    file = read("epoch,loss,learning_rate,val_accuracy,val_loss\n0,2,.1,.5,9\n1,1,.2,.6,8\n")
    assert file.notes == [
        "columns read: lr from 'learning_rate', loss from 'loss', metric from 'val_accuracy'; not read: epoch, val_loss"
    ]
    assert file.recordings[0].metric == [0.5, 0.6]
    carried = read("lr,loss\n0.1,\n,2\n0.2,\n,1\n")
    assert carried.notes == ["2 rows without a rate have that of the row before"]


def test_of_groups_whose_rates_keep_their_proportions_the_largest_is_read_and_said_to_be() -> None:
    file = read("lr-AdamW/pg1,lr-AdamW/pg2,loss\n.01,.1,2\n.02,.2,1\n")
    assert file.recordings[0].lr == [0.1, 0.2]
    assert file.notes == [
        "columns read: lr from 'lr-AdamW/pg2', loss from 'loss'; not read: lr-AdamW/pg1",
        "rates of parameter groups in the proportions 1, 10: the largest was read",
    ]
    with pytest.raises(InvalidArgument, match="pick one"):
        read("lr a,lr b,loss\n.01,.1,2\n.02,.1,1\n")


@pytest.mark.parametrize("name", ["metric", "accuracy", "val_acc", "Top-1 Accuracy"])
def test_the_papers_own_test_needs_no_loss(name: str) -> None:
    file = read(f"lr,{name}\n.1,.5\n.2,.6\n")
    assert (file.recordings[0].lr, file.recordings[0].metric) == ([0.1, 0.2], [0.5, 0.6])
    assert all(map(math.isnan, file.recordings[0].loss))
    picked = read("lr,score,time\n.1,.5,1\n.2,.6,2\n", metric="score")
    assert picked.recordings[0].metric == [0.5, 0.6]


def test_a_metric_in_a_row_of_its_own_is_of_the_row_before() -> None:
    records = [
        {"learning_rate": 0.1, "loss": 2},
        {"learning_rate": 0.2, "loss": 1},
        {"eval_accuracy": 0.5},
        {"eval_runtime": 3},
    ]
    (recording,) = read(json.dumps(records)).recordings
    assert (recording.lr, recording.loss) == ([0.1, 0.2], [2.0, 1.0])
    assert recording.metric[1] == 0.5


def test_a_column_whose_name_is_there_twice_is_not_passed_over_in_silence() -> None:
    file = read("lr,loss,loss\n.1,2,9\n.2,1,8\n")
    assert file.recordings[0].loss == [2.0, 1.0]
    assert file.notes == ["columns read: lr from 'lr', loss from 'loss'; not read: loss (3)"]


def test_columns_may_be_picked() -> None:
    text = "rate,objective,val_loss,score\n0.1,2,9,.5\n0.2,1,8,.6\n"
    assert values(text, lr="rate", loss="objective") == ([0.1, 0.2], [2.0, 1.0])
    assert read(text, lr="rate", loss="objective", metric="score").direction == "maximize"
    assert read(text, lr="rate", loss="objective", metric="val_loss").direction == "minimize"


def test_an_event_file_is_read_by_its_tags() -> None:
    file = read_curve_file(EVENTS.read_bytes())
    assert file.recordings[0].lr == pytest.approx(np.geomspace(1e-5, 1, 120), rel=1e-6)
    assert file.recordings[0].measured == 30
    assert file.notes == [
        "columns read: lr from 'train/lr', loss from 'train/loss', metric from 'val/accuracy'",
    ]
    assert 0.001 < (read_recordings(file.recordings).max_lr or 0) < 0.3
    with pytest.raises(InvalidArgument) as caught:
        read_curve_file(EVENTS.read_bytes(), Picked(loss="los"))
    assert str(caught.value) == (
        "loss: must be one of the curve's columns: train/lr, train/loss, val/accuracy, but got 'los'"
    )


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("", "curve", "names of its columns"),
        ("0.1,2\n0.2,1", "curve", "'0.1,2'"),
        ("lr,val_loss\n1,2", "loss", "lr, val_loss"),
        ("log10(lr),loss\n-1,2", "lr", "log10(lr), loss"),
        ("lr,loss", "curve", "at least one row"),
        ("lr,loss\n0.1,2\nlow,2", "lr", "line 3, but got 'low'"),
        ("lr,loss\n\n0.1,2\n0.2,high", "loss", "line 4, but got 'high'"),
        ("lr,loss\n-1,2", "lr", "line 2, but got '-1'"),
        ("lr,loss\n,2", "lr", "at least one row"),
        ("lr,loss\n0.1,2\n0.2,1,3", "curve", "line 3"),
        ('lr,loss\n"' + "9" * 200_000, "curve", "must be CSV"),
        ("lr,loss a,loss b\n1,2,3", "loss", "pick one, but got ['loss a', 'loss b']"),
        ("Wall time,Step,Value\n1,2,3", "curve", "give its event file"),
        ("{", "curve", "must be JSON"),
        ("[" * 5000, "curve", "must be JSON"),
        ("[1, 2]", "curve", "columns"),
        ('{"lr": [0.1, 0.2], "loss": [1]}', "curve", "equal length"),
        ('{"lr": [[0.1, 0.2], [0.2, 0.3]], "loss": [2, 1]}', "lr", "must be a number"),
        ("[[1.5, 0, 2.3], [1.6, 1, 2.2]]", "curve", "must be JSON of columns"),
    ],
)
def test_a_file_that_is_no_curve_is_one_short_error(text: str, field: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(text)
    assert caught.value.field == field
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


PLAIN = "lr,loss\n0.1,2\n0.2,1\n"


def test_a_file_that_was_gzipped_is_read_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(PLAIN.encode())
    assert read_curve_file(packed) == read(PLAIN)
    with pytest.raises(InvalidArgument, match="curve: must be whole where it is gzipped, and of at most"):
        read_curve_file(packed[:-9])
    monkeypatch.setattr(curve_table, "LARGEST", 10)
    with pytest.raises(InvalidArgument, match="of at most 10 bytes"):
        read_curve_file(packed)


@pytest.mark.parametrize(
    "text",
    [
        "run,lr,loss\nred,.1,2\nred,.2,1\nblue,.1,3\nblue,.2,2\n",
        "Name,step,lr,loss\nred,0,.1,2\nblue,0,.1,3\nred,1,.2,1\nblue,1,.2,2\n",
        "Step,red - lr,red - train/loss,red - train/loss__MIN,blue - lr,blue - train/loss\n"
        "0,.1,2,9,.1,3\n1,.2,1,9,.2,2\n",
        "lr,red - loss,blue - loss\n.1,2,3\n.2,1,2\n",  # W&B with the rate along the axis
        "Run,Run ID,metric,step,timestamp,value\n"  # MLflow's
        "red,a,lr,0,9,.1\nred,a,lr,1,9,.2\nred,a,loss,0,9,2\nred,a,loss,1,9,1\n"
        "blue,b,lr,0,9,.1\nblue,b,lr,1,9,.2\nblue,b,loss,0,9,3\nblue,b,loss,1,9,2\n",
    ],
)
def test_each_run_in_a_file_is_a_curve_of_its_own_and_told(text: str) -> None:
    file = read(text)
    red, blue = file.recordings
    assert ((red.lr, red.loss), (blue.lr, blue.loss)) == (([0.1, 0.2], [2.0, 1.0]), ([0.1, 0.2], [3.0, 2.0]))
    assert file.notes[-1] == "2 runs, read as repetitions of one test: red, blue"


def test_one_of_several_runs_may_be_picked() -> None:
    text = "lr,red - loss,blue - loss\n.1,2,3\n.2,1,2\n"
    assert values(text, loss="blue - loss") == ([0.1, 0.2], [3.0, 2.0])


def test_values_that_have_a_row_each_are_put_side_by_side_by_their_step() -> None:
    of_mlflow = {"metrics": [{"key": k, "value": v, "step": s} for k, s, v in (("lr", 0, 0.1), ("loss", 0, 2.0))]}
    assert values(json.dumps(of_mlflow)) == ([0.1], [2.0])
    assert values("step,tag,value\n10,lr,.2\n9,lr,.1\n10,loss,1\n9,loss,2\n") == ([0.1, 0.2], [2.0, 1.0])
    with pytest.raises(InvalidArgument, match="curve: must have the number of a step in line 2, but got 'first'"):
        read("step,tag,value\nfirst,lr,.2\n")


def test_a_file_that_is_no_text_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="must be text in UTF-8"):
        read_curve_file(b"lr,loss\n\xff\xfe")
    for content, kind in ((b"\x1f\x8b\x08", "gzip"), (pickle.dumps({}), "pickle"), (b"PK\x03\x04", "Excel")):
        with pytest.raises(InvalidArgument, match=kind):
            read_curve_file(content)


def test_hundreds_of_columns_make_no_long_error() -> None:
    names = [f"column number {number}" for number in range(500)]
    with pytest.raises(InvalidArgument) as caught:
        read(",".join(names) + "\n" + ",".join("1" for _ in names))
    assert len(str(caught.value)) < 400


def test_recordings_are_made_of_rows() -> None:
    rows: list[Any] = [("0", 0.1, 2.0, None), ("1", 0.1, None, 0.5), ("0", 0.2, 1.0, None)]
    first, second = recordings_of(rows)
    assert (first.lr, first.loss, second.metric) == ([0.1, 0.2], [2.0, 1.0], [0.5])
    assert math.isnan(second.loss[0])


def test_json_may_hold_nan_as_others_write_it() -> None:
    text = json.dumps({"lr": [0.1, 0.2], "loss": [2.0, math.nan]})
    assert math.isnan(read(text).recordings[0].loss[1])
