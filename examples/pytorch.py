"""Plain PyTorch: bounds and a scheduler for your own model, optimizer, loss and loader in five lines.

Run it: python examples/pytorch.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clr

EPOCHS = 10

torch.manual_seed(0)
pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
images = (pixels.float() - 4.9) / 6.0
train = DataLoader(TensorDataset(images[:1200], labels[:1200]), batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)

# The five lines. The test leaves model, optimizer and random numbers bit for bit as they were.
tested = clr.range_test(model=model, optimizer=optimizer, loss=F.cross_entropy, train=train, epochs=EPOCHS)
bounds = tested.bounds
print(f"base_lr {bounds.base_lr:.4g}  max_lr {bounds.max_lr:.4g}  {bounds.confidence} confidence  {bounds.reasons}")
stepsize = EPOCHS * len(train) // 2
scheduler = clr.scheduler(optimizer, base_lr=bounds.base_lr, max_lr=bounds.max_lr, stepsize=stepsize)

for _ in range(EPOCHS):
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()

accuracy = (model(images[1200:]).argmax(1) == labels[1200:]).float().mean()
print(f"accuracy on {len(images) - 1200} other digits after one cycle of {2 * stepsize} steps: {accuracy:.3f}")
