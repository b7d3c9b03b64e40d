"""Several processes that train one network: each sees other batches, and all must find the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import datetime, json, sys
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
import clr
from clr.errors import InvalidArgument

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=90))
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(1200, 8)
data = TensorDataset(x, (x.sum(1) > 0).long())
train = DataLoader(data, batch_size=10, sampler=DistributedSampler(data))
told = {}

def own(wrap):
    torch.manual_seed(0)
    model = wrap(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    here = dist.get_rank() * 100
    val = TensorDataset(*data[here : here + 100])
    return {"model": model, "optimizer": optimizer, "train": train, "val": val, "loss": F.cross_entropy}

for wrap in (DistributedDataParallel, fully_shard):
    mine = own(wrap)
    before = [one.detach().clone() for one in mine["model"].parameters()]
    tested = clr.range_test(**mine, epochs=4, progress=False)
    kept = all(map(torch.equal, before, mine["model"].parameters()))
    told[wrap.__name__] = [tested.bounds.max_lr, tested.curves[0].loss, tested.curves[0].metric, kept]

try:
    clr.recommend(**mine, save="runs.db")
except InvalidArgument as error:
    told["save"] = str(error)
if dist.get_rank() == 0:  # what is not wrapped is trained by whoever asks, alone
    told["alone"] = clr.range_test(**own(lambda network: network), epochs=4, progress=False).bounds.max_lr
open(f"{sys.argv[1]}/{dist.get_rank()}", "w").write(json.dumps(told))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(folder / "program.py"), str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / rank).read_text()) for rank in "01"]


@pytest.mark.parametrize("wrap", ["DistributedDataParallel", "fully_shard"])
def test_a_network_in_several_processes_is_tested_alike_in_all_and_left_as_it_was(
    told: list[dict[str, Any]], wrap: str
) -> None:
    first, second = (one[wrap] for one in told)
    assert first == second
    max_lr, losses, metrics, kept = first
    assert max_lr > 0.01
    assert losses
    assert metrics
    assert kept


def test_runs_of_several_processes_are_not_saved_to_one_file(told: list[dict[str, Any]]) -> None:
    for one in told:
        assert one["save"].startswith("save: must be None where several processes train together")


def test_a_network_that_is_not_wrapped_is_tested_by_one_process_alone(told: list[dict[str, Any]]) -> None:
    assert told[0]["alone"] > 0.01
    assert "alone" not in told[1]
