"""accelerate: it prepares model, optimizer and loaders, but not the scheduler, which it would step once a process.

By hand:   accelerate launch --cpu --num_processes 2 examples/commands/with_accelerate.py
By clr:    clr tune --epochs 10 --iterations-per-epoch 24 --direction maximize -- \
               accelerate launch --cpu --num_processes 2 --main_process_port 0 examples/commands/with_accelerate.py
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clr

accelerator = Accelerator(cpu=True)
run = clr.current_run(base_lr=0.01, max_lr=0.1, step_size_up=120, steps=240)
set_seed(run.seed)

pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
images = (pixels.float() - 4.9) / 6.0
size = 50 // accelerator.num_processes
train = DataLoader(TensorDataset(images[:1200], labels[:1200]), batch_size=size, shuffle=True)
val = DataLoader(TensorDataset(images[1200:], labels[1200:]), batch_size=200)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
model, optimizer, train, val = accelerator.prepare(model, optimizer, train, val)
scheduler = run.scheduler(optimizer)

step = 0
while step < run.steps:
    for x, y in train:
        loss = F.cross_entropy(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        accuracy = None
        if run.evaluates(step):
            with torch.no_grad():
                hits = [accelerator.gather_for_metrics(model(some).argmax(1) == labels) for some, labels in val]
            accuracy = torch.cat(hits).float().mean()
        run.log(loss=loss, metric=accuracy)
        step += 1
        if step == run.steps:
            break

accelerator.end_training()
