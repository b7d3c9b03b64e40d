"""A network that several processes train together: what each of them sees is averaged, so that all decide alike."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def training_group(network: nn.Module) -> Any:
    """The process group that trains ``network`` (DDP or FSDP); None where this process trains it alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    kinds = (DistributedDataParallel, FullyShardedDataParallel, FSDPModule)
    wrapped = next((one for one in network.modules() if isinstance(one, kinds)), None)
    group = None if wrapped is None else getattr(wrapped, "process_group", None) or dist.group.WORLD
    return None if group is None or dist.get_world_size(group) == 1 else group


def reshard(network: nn.Module) -> None:
    """Let FSDP take back the whole parameters that it lent its modules to run: what they hold is then their own."""
    if dist.is_available() and dist.is_initialized():
        from torch.distributed.fsdp import FSDPModule

        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def averaged(value: Tensor, group: Any) -> Tensor:
    """The mean of a scalar over the processes of ``group``, the same in all of them; None: the value itself."""
    if group is None:
        return value
    mean = value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32, copy=True)
    dist.all_reduce(mean, group=group)
    return mean / dist.get_world_size(group)


def speaks() -> bool:
    """Whether this process is the one that shows what all of them do."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
