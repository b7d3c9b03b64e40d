"""What there is of Ray, torch and tasks: ``python -m worker.probe ray|torch|tasks`` prints it as one line of JSON."""

import json
import sys
from typing import Any

from service.settings import Settings


def ray() -> dict[str, Any]:
    """CPUs and GPUs of the cluster of the settings, or of a Ray that is started for a moment."""
    from worker.cluster import Cluster

    settings = Settings()
    cluster = Cluster(settings.ray_address, settings.home, cpus=1)
    try:
        return cluster.total()
    finally:
        cluster.stop()


def torch() -> dict[str, Any]:
    """Its version, and the names of its GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"version": torch.__version__, "gpus": gpus}


def tasks() -> list[dict[str, Any]]:
    """What there is to train, as it is published; torch comes with it."""
    from clr.tasks import describe_task, registered

    return [describe_task(name) for name in registered()]


if __name__ == "__main__":
    print(json.dumps({"ray": ray, "torch": torch, "tasks": tasks}[sys.argv[1]]()))
