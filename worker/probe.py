"""What Ray and torch see from here: ``python -m worker.probe ray|torch`` prints it as one line of JSON."""

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


if __name__ == "__main__":
    print(json.dumps({"ray": ray, "torch": torch}[sys.argv[1]]()))
