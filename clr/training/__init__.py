"""One training run: the task, its data, the loop, its checkpoints, and the return of what was borrowed."""
