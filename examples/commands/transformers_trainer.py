"""A transformers Trainer: `install` is the one line that is new in it.

A tiny GPT-2, made from its configuration, on the bytes of this project's README; nothing is downloaded.

By hand:   python examples/commands/transformers_trainer.py
By clr:    clr tune --epochs 20 --iterations-per-epoch 15 --direction minimize -- \
               python examples/commands/transformers_trainer.py
"""

import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

import clr
from clr.integrations.transformers import install

LENGTH = 32

run = clr.current_run(base_lr=1e-3, max_lr=1e-2, step_size_up=150, steps=300)
set_seed(run.seed)
text = Path(__file__).parents[2].joinpath("README.md").read_bytes()[:8192]
pieces = torch.tensor(list(text)).split(LENGTH)[:-1]
examples = [{"input_ids": piece, "labels": piece} for piece in pieces]
sizes = {"n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 2}
config = GPT2Config(vocab_size=256, bos_token_id=0, eos_token_id=0, **sizes)
with tempfile.TemporaryDirectory() as folder:
    args = TrainingArguments(
        folder, per_device_train_batch_size=16, dataloader_pin_memory=False, report_to=[], disable_tqdm=True
    )
    trainer = Trainer(GPT2LMHeadModel(config), args, train_dataset=examples[:-15], eval_dataset=examples[-15:])
    install(trainer, run, metric="eval_loss")
    trainer.train()
