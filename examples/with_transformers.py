"""transformers: bounds for your own Trainer, which then trains under the schedule.

A tiny GPT-2, made from its configuration, on the bytes of this project's README; nothing is downloaded.
Needs `pip install 'clr[transformers]'`. Run it: python examples/with_transformers.py
"""

import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from clr.integrations.transformers import install, lr_bounds

LENGTH = 32


def main() -> None:
    """Test, then train."""
    set_seed(0)
    text = Path(__file__).parents[1].joinpath("README.md").read_bytes()
    pieces = torch.tensor(list(text)).split(LENGTH)[:-1]
    examples = [{"input_ids": piece, "labels": piece} for piece in pieces]
    sizes = {"n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=256, bos_token_id=0, eos_token_id=0, **sizes)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        args = TrainingArguments(
            folder, num_train_epochs=20, per_device_train_batch_size=16, dataloader_pin_memory=False, **quiet
        )
        trainer = Trainer(GPT2LMHeadModel(config), args, train_dataset=examples[:-20], eval_dataset=examples[-20:])

        found = lr_bounds(trainer)
        print(found.to_python())
        install(trainer, found)
        trainer.train()
        print(f"loss {trainer.evaluate()['eval_loss']:.2f} nats a byte after {trainer.state.global_step} steps")


if __name__ == "__main__":
    main()
