"""Several processes that train one model: each sees the same run, the first one reports.

`--standalone` lets each start take a port of its own, so that several runs can be under way.

By hand:   torchrun --standalone --nproc-per-node 2 examples/commands/torchrun.py
By clr:    clr tune --epochs 10 --iterations-per-epoch 24 --direction maximize -- \
               torchrun --standalone --nproc-per-node 2 examples/commands/torchrun.py
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import clr

dist.init_process_group("gloo")
run = clr.current_run(base_lr=0.01, max_lr=0.1, step_size_up=120, steps=240)
torch.manual_seed(run.seed)

pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
images = (pixels.float() - 4.9) / 6.0
data = TensorDataset(images[:1200], labels[:1200])
sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(data, seed=run.seed)
train = DataLoader(data, batch_size=50 // dist.get_world_size(), sampler=sampler)
model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = run.scheduler(optimizer)

batches = iter(train)
for step in range(run.steps):
    if step % len(train) == 0:
        sampler.set_epoch(step // len(train))
        batches = iter(train)
    x, y = next(batches)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    accuracy = None
    if run.evaluates(step):
        accuracy = (model(images[1200:]).argmax(1) == labels[1200:]).float().mean()
    run.log(loss=loss, metric=accuracy)

dist.destroy_process_group()
