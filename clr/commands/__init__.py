"""A program of the user's own as the trainer: how it learns its run and reports, is started, followed and ended.

Owns the two files between a program and what drives it, and the processes that a program becomes.
"""

RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK")
"""Variables in which launchers (torchrun, accelerate, DeepSpeed; Slurm; Open MPI; MPICH) tell a process its rank among
all, the last one among those of its machine. The first that is set counts."""

DECIDES = ("policy", "base_lr", "max_lr", "step_size_up", "step_size_down", "gamma", "steps", "seed", "evaluate_every")
"""What of a run its program is told; what else a run has is for who follows it."""
