"""What the processes that train see of this one's environment: what a training may need, and no secrets."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "LC_*", "TMPDIR", "XDG_*"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_*", "SSL_CERT_*", "RAY_*"),
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "CUBLAS_*", "CUDNN_*", "ROCR_*", "HIP_*", "UCX_*", "GLOO_*"),
    *("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "TORCH*", "PYTORCH_*", "TRITON_*"),
)
"""Names of variables, ``*`` for any end."""

RAY_TOKEN = "RAY_AUTH_TOKEN"
"""Who has it may run anything on a cluster. An embedded Ray makes one of its own."""


@contextmanager
def shared(also: Sequence[str]) -> Iterator[None]:
    """Within the block the environment holds what ``KEPT`` and ``also`` name alone: what is started inherits that."""
    os.environ.pop(RAY_TOKEN, None)
    patterns = (*KEPT, *also)
    hidden = {name: value for name, value in os.environ.items() if not _matches(name, patterns)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def for_programs(also: Sequence[str]) -> list[str]:
    """Names of what a program of a user's own sees: Ray's own variables are for the process that starts it."""
    return [name for name in (*KEPT, *also) if not name.startswith("RAY_")]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
