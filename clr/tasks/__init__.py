"""What a spec's ``task`` and ``args`` mean: the registry, and the built-in tasks, one file each."""

from clr.tasks import cifar10, digits, fashion_mnist, image_folder, tabular, text_lm
from clr.tasks.registry import check_args, describe_task, find, load_task, registered, task

__all__ = [
    "check_args",
    "cifar10",
    "describe_task",
    "digits",
    "fashion_mnist",
    "find",
    "image_folder",
    "load_task",
    "registered",
    "tabular",
    "task",
    "text_lm",
]
